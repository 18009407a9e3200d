"""Post-training quantization: a low-bit model from a float checkpoint and a few batches."""
from __future__ import annotations

import os.path as osp
from itertools import islice
from typing import Any, Iterator

import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmaqd.compat import check_data_files
from mmaqd.quantizers import Quantizer, calibrate

from .hooks.reestimate_bn_hook import reestimate_batch_norm, trained_norms
from .launch import build_runner, load_config


def calibrate_checkpoint(config: str,
                         checkpoint: str,
                         out: str,
                         num_batches: int = 16,
                         reestimate_bn: bool = False,
                         cfg_options: dict | None = None) -> int:
    """Start the intervals of a low-bit model with the weights of a float one, without training.

    The batches are those of the training data, drawn at random by the config's seed, but they go
    through the test pipeline: images as the model will see them, without augmentation.

    Args:
        config: Path of the low-bit config.
        checkpoint: Checkpoint of its float twin.
        out: File that the low-bit checkpoint is written to; logs go into its folder.
        num_batches: Batches to look at, at least 1.
        reestimate_bn: Then estimate the statistics of BN anew from as many batches, with the
            quantized weights and inputs.
        cfg_options: Dotted keys of the config and their new values.

    Returns:
        Number of quantizers that were started.

    Raises:
        ValueError: ``num_batches`` is not positive, the model has no interval to start, or its
            weights are normalized.
        FileNotFoundError: The checkpoint or the data are missing.
    """
    if num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, but got {num_batches}.')
    folder, name = osp.split(osp.abspath(out))
    cfg = load_config(config, folder, cfg_options)
    cfg.load_from, cfg.resume = checkpoint, False
    check_data_files(cfg, ('train', 'test'))
    runner = build_runner(cfg)
    _refuse_normalized_weights(runner.model)
    runner.load_or_resume()
    started = calibrate(runner.model, _batches(runner, num_batches))
    if not started:
        raise ValueError(
            f'{config} with {checkpoint} has no interval to start. Give a low-bit config and the '
            'checkpoint of its float twin.')
    if reestimate_bn:
        runner.model.train()
        norms = trained_norms(runner.model)
        reestimate_batch_norm(runner.model, _batches(runner, num_batches), norms)
    runner.save_checkpoint(
        folder, name, save_optimizer=False, save_param_scheduler=False, meta=dict(epoch=0, iter=0))
    return started


def _batches(runner: Runner, num_batches: int) -> Iterator[Any]:
    return islice(calibration_loader(runner.cfg, runner.seed), num_batches)


def calibration_loader(cfg: Config, seed: int | None = None) -> DataLoader:
    """A loader of the training data of a config that sends them through its test pipeline.

    Args:
        cfg: A config with ``train_dataloader`` and ``test_dataloader``.
        seed: By which the images are drawn; None for that of the config, or 0.
    """
    pipeline = _innermost(cfg.test_dataloader.dataset).pipeline
    loader = {**cfg.train_dataloader, 'dataset': _piped(cfg.train_dataloader.dataset, pipeline)}
    if seed is None:
        seed = (cfg.get('randomness') or {}).get('seed') or 0
    return Runner.build_dataloader(loader, seed=seed)


def _innermost(dataset: Config) -> Config:
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _piped(dataset: Config, pipeline: list[dict]) -> dict:
    """A dataset without its wrappers for repetition and mixing, with another pipeline."""
    dataset = _innermost(dataset)
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [_piped(each, pipeline) for each in dataset.datasets]}
    return {**dataset, 'pipeline': pipeline}


def _refuse_normalized_weights(model: nn.Module) -> None:
    normalized = [
        module.name for module in model.modules()
        if isinstance(module, Quantizer) and getattr(module.kernel, 'normalize', False)
    ]
    if normalized:
        raise ValueError(
            f'{len(normalized)} quantizers normalize the weights, {normalized[0]} among them. A '
            'conv gives other outputs then, which only training makes up for. Turn it off: '
            '--cfg-options model.quantization.weight_quantizer.normalize=False')
