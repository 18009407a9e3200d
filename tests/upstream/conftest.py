"""What upstream's heads ask for while they train."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.models.dense_heads import paa_head
from mmengine.logging import MessageHub


class OneComponent:
    """In place of scikit-learn's mixture of Gaussians, which PAA fits to its losses."""

    def fit(self, losses: np.ndarray) -> None:
        self.mean = losses.mean()

    def predict(self, losses: np.ndarray) -> np.ndarray:
        return np.zeros(len(losses), dtype=np.int64)

    def score_samples(self, losses: np.ndarray) -> np.ndarray:
        return -np.abs(losses - self.mean).ravel()


@pytest.fixture(autouse=True)
def message_hub(monkeypatch: pytest.MonkeyPatch) -> MessageHub:
    """The first iteration of a training that no other test knows."""
    monkeypatch.setattr(paa_head, 'skm',
                        SimpleNamespace(GaussianMixture=lambda *_, **__: OneComponent()))
    hub = MessageHub('upstream')
    hub.update_info_dict(dict(epoch=0, iter=0))
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: hub)
    return hub
