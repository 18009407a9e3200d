"""Fixtures and settings that hold for every test."""
from __future__ import annotations

import gc
import random
from types import SimpleNamespace
from typing import Iterator

import numpy as np
import pytest
import torch

DEVICES = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    """The CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Let every test draw the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def no_time_for_tidiness() -> Iterator[None]:
    """Leave out what MMEngine does for long in every run.

    It formats the config that a run writes, and collects garbage for each data set.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
        patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: 0))
        yield


def pytest_collection_finish() -> None:
    """Spare what was imported from all garbage collections."""
    gc.collect()
    gc.freeze()
