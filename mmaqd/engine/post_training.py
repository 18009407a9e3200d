"""Post-training quantization: a low-bit model from a float checkpoint and a few batches."""
from __future__ import annotations

import os.path as osp
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, Iterator

import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmaqd.compat import check_data
from mmaqd.invocation import command, same_options
from mmaqd.quantizers import Quantizer, WeightQuantizer, calibrate

from .batch_norm import reestimate_batch_norm, trained_norms
from .launch import build_runner, load_config
from .pipelines import evaluation_pipeline, with_pipeline
from .progress import Progress


def calibrate_checkpoint(config: str,
                         checkpoint: str,
                         out: str,
                         num_batches: int = 16,
                         reestimate_bn: bool = False,
                         cfg_options: dict | None = None) -> int:
    """Initialize the intervals of a low-bit model with the weights of a float one; no training.

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
        Number of quantizers that were initialized.

    Raises:
        ValueError: ``num_batches`` is not positive, ``out`` is a folder, the config has no pipeline
            for evaluation; there is nothing to quantize, or the checkpoint is a low-bit one;
            weights get another scale that BN does not take back: normalized ones (with
            ``reestimate_bn`` those that lose their mean), those of DoReFa without ``reestimate_bn``
            or with no trained BN behind them; see :func:`mmaqd.quantizers.calibrate` for what else.
        FileNotFoundError: The checkpoint or the data are missing.
    """
    if num_batches < 1:
        raise ValueError(f'num_batches must be at least 1, but got {num_batches}.')
    folder, name = osp.split(osp.abspath(out))
    _check_is_file(out)
    with TemporaryDirectory(prefix='mmaqd-') as logs:
        cfg = load_config(config, logs, cfg_options)
        cfg.load_from, cfg.resume = checkpoint, False
        check_data(cfg, ('train', 'test'))
        # MMEngine keeps loggers and visualizers by name, and with them the folder that goes.
        cfg.experiment_name = osp.basename(logs)
        cfg.visualizer = dict(type='Visualizer', vis_backends=None, name=cfg.experiment_name)
        runner = build_runner(cfg)
        _refuse_lost_scales(runner.model, reestimate_bn)
        runner.load_or_resume()
        _refuse_nothing_to_do(runner.model, config, checkpoint)
        # Behind a BN that is estimated anew weights may have another scale, elsewhere not.
        needs = dict(need_norms=True) if reestimate_bn else {}
        progress = Progress('Calibrating', num_batches)
        initialized = calibrate(runner.model, _batches(runner, progress), **needs)
        if reestimate_bn:
            runner.model.train()
            norms = trained_norms(runner.model)
            anew = _batches(runner, Progress('Estimating BN', num_batches))
            reestimate_batch_norm(runner.model, anew, norms)
        runner.cfg.work_dir = folder
        runner.save_checkpoint(
            folder,
            name,
            save_optimizer=False,
            save_param_scheduler=False,
            meta=dict(epoch=0, iter=0))
    norms = f' and {len(norms)} BN got new statistics' if reestimate_bn else ''
    print(f'Calibrated on {progress}: {initialized} quantizers got intervals{norms}. Wrote {out}. '
          f'Next: {command("test", config, out, *same_options(cfg_options))}')
    return initialized


def calibration_loader(cfg: Config, seed: int | None = None) -> DataLoader:
    """A loader of the training data of a config that sends them through its test pipeline.

    Args:
        cfg: A config with ``train_dataloader`` and ``test_dataloader``.
        seed: By which the images are drawn; None for that of the config, or 0.

    Raises:
        ValueError: The config has no pipeline for evaluation.
    """
    dataset = with_pipeline(cfg.train_dataloader.dataset, evaluation_pipeline(cfg))
    if seed is None:
        seed = (cfg.get('randomness') or {}).get('seed') or 0
    return Runner.build_dataloader({**cfg.train_dataloader, 'dataset': dataset}, seed=seed)


def _check_is_file(out: str) -> None:
    if osp.isdir(out) or out.endswith(('/', osp.sep)):
        raise ValueError(f'--out must name the file that is written, but {out!r} is a folder: give '
                         f'{osp.join(out, "low_bit.pth")}, for example.')


def _batches(runner: Runner, progress: Progress) -> Iterator[Any]:
    """Batches to calibrate on, each reported when it is done."""
    for batch in islice(calibration_loader(runner.cfg, runner.seed), progress.num_batches):
        yield batch
        progress.done(len(batch['data_samples']))


def _refuse_nothing_to_do(model: nn.Module, config: str, checkpoint: str) -> None:
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    if not quantizers:
        raise ValueError(f'{config} has no interval to start, as its model is in float. Give a '
                         'low-bit config, with type=\'mmaqd.QuantizedDetector\'.')
    if not any(each.is_fresh or not bool(each.initialized) for each in quantizers):
        raise ValueError(
            f'{config} with {checkpoint} has no interval to start. Give a low-bit config and the '
            'checkpoint of its float twin; this one is of a low-bit model already.')


def _refuse_lost_scales(model: nn.Module, reestimate_bn: bool) -> None:
    """Raise if weights get another scale, or lose their mean, and nothing makes up for that."""
    lost = [
        module for module in model.modules() if isinstance(module, WeightQuantizer) and (
            module.kernel.shifts if reestimate_bn else module.kernel.normalizes)
    ]
    if not lost:
        return
    first = lost[0]
    what = 'take the mean from' if reestimate_bn else 'bring another scale to'
    raise ValueError(
        f'{len(lost)} quantizers {what} the weights, {first.name} among them. A conv gives other '
        f'outputs then, which only training makes up for. {_ways_out(first)}')


def _ways_out(quantizer: WeightQuantizer) -> str:
    change = quantizer.unscaled_cfg
    key = 'model.quantization.weight_quantizer'
    if 'type' in change:
        return (f'Take another quantizer, such as {key}={change}, or let --reestimate-bn take the '
                'scale back.')
    options = ' '.join(f'{key}.{name}={value}' for name, value in change.items())
    return f'Turn it off: --cfg-options {options}'
