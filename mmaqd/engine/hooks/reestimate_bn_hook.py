"""Take BN's running statistics anew from data, with the weights as they are now."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterable, Iterator

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.engine.training_data import training_batches
from mmaqd.quantizers import modes_kept
from mmaqd.registry import HOOKS

from .arguments import check_positive


@HOOKS.register_module()
class ReestimateBNHook(Hook):
    """Re-estimates the running statistics of BN and MultiLevelBN after training epochs.

    While training, the running statistics are moving averages over the last iterations, in which
    the weights moved too; at low bits a small step of a weight can move its code, and with it the
    statistics. This hook replaces them by mean and variance over ``num_batches`` batches, with
    the weights fixed ("PreciseBN" of arXiv:2105.07576). It runs before the epoch's validation and
    checkpoint. BN that is frozen (in evaluation mode while training) is left alone.

    With an ``EMAHook`` the statistics are those of the averaged weights, which are validated and
    saved.

    Args:
        num_batches: Training batches to look at, in each process, at least 1.
        interval: Epochs between two re-estimations, at least 1; the last epoch always has one.

    Raises:
        ValueError: An argument is out of its range; the training does not go by epochs.
    """

    def __init__(self, num_batches: int = 50, interval: int = 1) -> None:
        check_positive(self, num_batches=num_batches, interval=interval)
        self.num_batches = num_batches
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError('ReestimateBNHook works at the end of epochs, but train_cfg is an '
                             'IterBasedTrainLoop. Train by epochs, or leave the hook out.')

    def after_train_epoch(self, runner: Runner) -> None:
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        names = trained_norms(model)
        averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        source = averaged[-1] if averaged else model
        batches = training_batches(runner, self.num_batches, runner.epoch)
        reestimate_batch_norm(source, batches, names)
        for name in names if averaged else ():
            _copy_statistics(source.get_submodule(name), model.get_submodule(name))
        runner.logger.info(f'Re-estimated the statistics of {len(names)} BN layers.')


def trained_norms(model: nn.Module) -> list[str]:
    """Names of the BN layers that follow the batches: in training mode, with statistics."""
    return [
        name for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[dict], names: Iterable[str]) -> None:
    """Set running statistics to mean and variance over all values of ``batches``.

    Each value counts the same, so that the variance holds that between the batches too; the
    average over the processes is taken likewise. Each BN normalizes by the statistics of the batch
    meanwhile, as in training. A BN that no data reaches keeps its statistics.

    Args:
        model: A detector. Its weights and its mode stay as they are.
        batches: Batches of a data loader.
        names: Names of the BN layers.
    """
    norms = [model.get_submodule(name) for name in names]
    with _observing(model, norms) as moments:
        for batch in batches:
            data = model.data_preprocessor(batch, training=False)
            model(**data, mode='tensor')
    for norm, moment in zip(norms, moments):
        _set_statistics(norm, moment)


@contextmanager
def _observing(model: nn.Module, norms: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Run ``norms`` on batch statistics and sum 1, x and x^2 of what reaches them, (3, C) each."""
    moments = [
        norm.running_mean.new_zeros(3, norm.num_features, dtype=torch.float64) for norm in norms
    ]
    handles = [
        norm.register_forward_pre_hook(_adding_to(moment)) for norm, moment in zip(norms, moments)
    ]
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
        try:
            yield moments
        finally:
            for norm, handle in zip(norms, handles):
                norm.track_running_stats = True
                handle.remove()


def _adding_to(moments: Tensor) -> Callable:

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        var, mean = torch.var_mean(values.float(), dim=1, correction=0)
        var, mean = var.double(), mean.double()
        ones = torch.ones_like(mean)
        moments.add_(torch.stack([ones, mean, var + mean.square()]) * values.shape[1])

    return add


def _set_statistics(norm: nn.Module, moments: Tensor) -> None:
    all_reduce(moments)
    count, total, squares = moments
    if not count.all():
        return
    mean = total / count
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((squares / count - mean.square()).clamp(min=0))


def _copy_statistics(source: nn.Module, target: nn.Module) -> None:
    target.running_mean.copy_(source.running_mean)
    target.running_var.copy_(source.running_var)
