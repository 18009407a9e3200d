"""Runs of MMEngine's runner inside the test process."""
from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

_NUMBERS = count()


def make_runner(cfg: Config, **changes: Any) -> Runner:
    """A runner of ``cfg`` with dotted keys changed, beside others in the same process.

    MMEngine keeps loggers and visualizers by name, so each runner gets names of its own.
    """
    cfg = Config(cfg.to_dict())
    cfg.merge_from_dict(changes)
    name = f'run_{next(_NUMBERS)}'
    cfg.experiment_name = cfg.visualizer.name = name
    cfg.log_level = 'WARNING'
    return Runner.from_cfg(cfg)


def train(cfg: Config, **changes: Any) -> Runner:
    """Train, and return the runner."""
    runner = make_runner(cfg, **changes)
    runner.train()
    return runner


def checkpoint(work_dir: str | Path, epoch: int) -> dict:
    """What a run saved after an epoch (1, 2, ...)."""
    path = Path(work_dir) / f'epoch_{epoch}.pth'
    return torch.load(path, map_location='cpu', weights_only=False)


def scalars(work_dir: str | Path) -> list[dict]:
    """The records that a run's visualizer wrote, in their order."""
    path, = Path(work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def differences(first: Any, second: Any, path: str = '') -> list[str]:
    """Where two nested structures of dicts, sequences, tensors and values differ in any bit."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [
            each for key in first for each in differences(first[key], second[key], f'{path}.{key}')
        ]
    if isinstance(first, (list, tuple)) and len(first) == len(second):
        return [
            each for index, pair in enumerate(zip(first, second))
            for each in differences(*pair, f'{path}[{index}]')
        ]
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) and first.dtype == second.dtype else [path]
    return [] if type(first) is type(second) and first == second else [path]
