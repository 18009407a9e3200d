"""Loads a trained detector and batches of its data, for the reports and pictures."""
from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Iterator

import torch.nn as nn
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmaqd.checkpoints import quantizer_names, read_checkpoint
from mmaqd.compat import check_data
from mmaqd.engine.launch import load_config
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS

_CALIBRATION_BATCHES = 4


def load_detector(config: str | Path,
                  checkpoint: str | Path,
                  cfg_options: dict | None = None,
                  device: str | None = None) -> tuple[Config, nn.Module]:
    """Build the detector of a config and load a checkpoint into it.

    Args:
        config: Path of the config.
        checkpoint: Checkpoint of its model, or of its float twin.
        cfg_options: Dotted keys of the config and their new values.
        device: Such as ``'cuda:0'``; by default a GPU if there is one.

    Returns:
        The config and the detector, in evaluation mode.
    """
    cfg = load_config(str(config), cfg_options=cfg_options)
    # A palette is given so that MMDetection does not build the data set to look for one.
    model = init_detector(cfg, str(checkpoint), palette='random', device=device or get_device())
    return cfg, model.eval()


def build_detector(config: str | Path, cfg_options: dict | None = None) -> tuple[Config, nn.Module]:
    """Build the detector of a config without weights of a checkpoint.

    Args:
        config: Path of the config.
        cfg_options: Dotted keys of the config and their new values.

    Returns:
        The config and the detector on the CPU, in evaluation mode.
    """
    cfg = load_config(str(config), cfg_options=cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return cfg, revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def initialize_intervals(cfg: Config, model: nn.Module) -> int:
    """Initialize the intervals that the checkpoint did not bring, from a few training batches.

    Args:
        cfg: Config with the training data; not read when all intervals have a value.
        model: Its detector.

    Returns:
        Number of intervals that were initialized; 0 for a float model and for the checkpoint of a
        low-bit one.
    """
    return calibrate(model, iterate_batches(cfg, 'train', _CALIBRATION_BATCHES))


def is_float_checkpoint(checkpoint: str | Path) -> bool:
    """Whether a checkpoint holds no quantizer, so that it is one of a float model.

    Args:
        checkpoint: File that MMEngine wrote.
    """
    state = read_checkpoint(str(checkpoint), map_location='cpu')
    return not quantizer_names(state.get('state_dict', state))


def iterate_batches(cfg: Config,
                    split: str = 'train',
                    num_batches: int | None = None) -> Iterator[Any]:
    """Batches of one of the config's data loaders, the same ones at every call.

    The random generators are seeded when the first batch is asked for.

    Args:
        cfg: The config of a run.
        split: ``'train'``, ``'val'`` or ``'test'``.
        num_batches: The most to give, at least 1; all by default.

    Yields:
        What the detector's data preprocessor takes.

    Raises:
        ValueError: The config has no data loader for ``split``, or ``num_batches`` is below 1.
        FileNotFoundError: Its data are missing.
    """
    if num_batches is not None and num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, or None for all, but got {num_batches}.')
    if not cfg.get(f'{split}_dataloader'):
        raise ValueError(f'The config has no {split}_dataloader, so there are no batches of the '
                         f'{split} split. Take another split, or add the data loader.')
    check_data(cfg, (split, ))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(0)
    yield from islice(Runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0), num_batches)
