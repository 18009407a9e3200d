"""Post-training quantization: a low-bit model from a float checkpoint and a few batches."""
from __future__ import annotations

import os.path as osp
import sys
from itertools import islice
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Iterator

import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import Runner

from mmaqd.compat import check_data_files
from mmaqd.quantizers import Quantizer, calibrate

from .hooks.reestimate_bn_hook import reestimate_batch_norm, trained_norms
from .launch import build_runner, load_config
from .pipelines import evaluation_pipeline, with_pipeline


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
        out: File that the low-bit checkpoint is written to.
        num_batches: Batches to look at, at least 1.
        reestimate_bn: Then estimate the statistics of BN anew from as many batches, with the
            quantized weights and inputs.
        cfg_options: Dotted keys of the config and their new values.

    Returns:
        Number of quantizers that were started.

    Raises:
        ValueError: ``num_batches`` is not positive, ``out`` is a folder, the model has no interval
            to start, its weights are normalized, or the config has no pipeline for evaluation.
        FileNotFoundError: The checkpoint or the data are missing.
    """
    if num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, but got {num_batches}.')
    folder, name = osp.split(osp.abspath(out))
    _check_is_file(out)
    with TemporaryDirectory(prefix='mmaqd-') as logs:
        cfg = load_config(config, logs, cfg_options)
        cfg.load_from, cfg.resume = checkpoint, False
        check_data_files(cfg, ('train', 'test'))
        # MMEngine keeps loggers and visualizers by name, and with them the folder that goes.
        cfg.experiment_name = osp.basename(logs)
        cfg.visualizer = dict(type='Visualizer', vis_backends=None, name=cfg.experiment_name)
        batches = _loader_cfg(cfg)
        runner = build_runner(cfg)
        _refuse_normalized_weights(runner.model)
        runner.load_or_resume()
        started = calibrate(runner.model, _batches(runner, batches, num_batches, 'Calibrating'))
        if not started:
            raise ValueError(_nothing_to_start(config, checkpoint, runner.model))
        if reestimate_bn:
            runner.model.train()
            norms = trained_norms(runner.model)
            anew = _batches(runner, batches, num_batches, 'Estimating BN')
            reestimate_batch_norm(runner.model, anew, norms)
        runner.cfg.work_dir = folder
        runner.save_checkpoint(
            folder,
            name,
            save_optimizer=False,
            save_param_scheduler=False,
            meta=dict(epoch=0, iter=0))
    print(f'Started {started} intervals and wrote {out}. Next: python tools/test.py {config} {out}')
    return started


def _check_is_file(out: str) -> None:
    if osp.isdir(out) or out.endswith(('/', osp.sep)):
        raise ValueError(f'--out must name the file that is written, but {out!r} is a folder: give '
                         f'{osp.join(out, "low_bit.pth")}, for example.')


def _nothing_to_start(config: str, checkpoint: str, model: nn.Module) -> str:
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    if not quantizers:
        return (f'{config} with {checkpoint} has no interval to start: the model has no quantizer. '
                'Give a low-bit config and the checkpoint of its float twin.')
    if all(quantizer.start == 'constant' or not quantizer.learned for quantizer in quantizers):
        return (f'{config} has no interval to start from data: its {len(quantizers)} quantizers '
                "start from a constant, as the methods' papers have it. Let them start from data, "
                "by start='least_error' of the quantizers that take it, or train the model.")
    return (f'{config} with {checkpoint} has no interval to start: the checkpoint brings them all, '
            'since it is one of a low-bit model. Test it as it is, or give the checkpoint of the '
            'float twin.')


def _loader_cfg(cfg: Config) -> dict:
    """Config of a loader of the training data whose images go through the test pipeline."""
    loader = cfg.train_dataloader
    return {**loader, 'dataset': with_pipeline(loader.dataset, evaluation_pipeline(cfg))}


def _batches(runner: Runner, loader: dict, num_batches: int, title: str) -> Iterator[Any]:
    """Batches of a loader, with a line of progress for a terminal."""
    start = monotonic()
    given = islice(Runner.build_dataloader(loader, seed=runner.seed), num_batches)
    for done, batch in enumerate(given, 1):
        yield batch
        left = (monotonic() - start) / done * (num_batches - done)
        if sys.stderr.isatty():
            text = f'{title}: {done} of {num_batches} batches, {left:.0f} s left'
            print(f'\r{text:<60}', end='\n' if done == num_batches else '', file=sys.stderr)


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
