"""Run a model as it runs in training, without changing it."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

import torch.nn as nn
from mmengine.dist import get_world_size
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module trains or evaluates as it did before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def frozen_norms(model: nn.Module) -> set[nn.Module]:
    """The BN layers that keep their statistics while ``model`` trains.

    ``norm_eval``, ``frozen_stages`` and the like work when a model is put into training mode, so
    that is done here for a moment.
    """
    with modes_kept(model):
        model.train()
        return {norm for norm in _norms(model) if not norm.training and has_statistics(norm)}


def has_statistics(norm: nn.Module) -> bool:
    """Whether a norm has running statistics, which it uses in evaluation mode."""
    return getattr(norm, 'running_mean', None) is not None


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Run BN on the statistics of the batch where training does so; everything else evaluates.

    Frozen BN keeps its statistics, as does BN that gets one value per channel, of which there is no
    variance. Afterwards all statistics and modes are as they were.
    """
    frozen = frozen_norms(model)
    trained = [norm for norm in _norms(model) if norm not in frozen and has_statistics(norm)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in trained]
    handles = [norm.register_forward_pre_hook(_train_on_several_values) for norm in trained]
    with modes_kept(model):
        model.eval()
        try:
            yield
        finally:
            for norm, buffers, handle in zip(trained, kept, handles):
                handle.remove()
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])


def _train_on_several_values(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    # A BN that is synchronized may get more values than these, and counts them itself.
    synchronized = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
    norm.training = synchronized or inputs[0].numel() > inputs[0].shape[1]


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
