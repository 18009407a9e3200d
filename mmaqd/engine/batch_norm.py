"""Take BN's running statistics anew from data, with the weights as they are now."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterable, Iterator

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.quantizers import modes_kept


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
    with _summing(model, norms) as moments:
        for batch in batches:
            data = model.data_preprocessor(batch, training=False)
            model(**data, mode='tensor')
    for norm, moment in zip(norms, moments):
        _set_statistics(norm, moment)


@contextmanager
def _summing(model: nn.Module, norms: list[nn.Module]) -> Iterator[list[Tensor]]:
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


def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Give one BN the running statistics of another."""
    target.running_mean.copy_(source.running_mean)
    target.running_var.copy_(source.running_var)
