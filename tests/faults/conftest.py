"""A small low-bit run whose checkpoints are spoiled."""
from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import train


@pytest.fixture(scope='session')
def run(tmp_path_factory) -> tuple[Config, Path]:
    """A low-bit run of two epochs: its config, and its work dir with epoch_1 and epoch_2."""
    root = tmp_path_factory.mktemp('run')
    cfg = run_cfg(make_coco(root / 'data'), root / 'work', bits=4, epochs=2)
    train(cfg)
    return cfg, root / 'work'


@pytest.fixture
def cfg(run, tmp_path) -> Config:
    """The run's config with a work dir of its own."""
    cfg = deepcopy(run[0])
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


@pytest.fixture
def checkpoint(run) -> dict:
    """What the run saved after its first epoch."""
    return torch.load(run[1] / 'epoch_1.pth', weights_only=False)
