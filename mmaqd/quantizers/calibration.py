"""Start the learned parameters of a model's quantizers from data."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator, Optional

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from .base import calibrating


@torch.no_grad()
def calibrate(model: nn.Module,
              batches: Iterable[Any],
              run: Optional[Callable[[nn.Module, Any], Any]] = None) -> int:
    """Start the quantizers that have no interval yet from a few batches.

    The batches pass through the model with those quantizers inactive and with BN taking the
    statistics of the batch; BN's running statistics stay as they were. Under distributed training
    their parameters are averaged over the processes.

    Args:
        model: A model with quantizers. With none to initialize, no batch is taken.
        batches: What ``run`` takes; a data loader's batches for a detector.
        run: Called as ``run(model, batch)`` for a forward pass. By default the batch goes through
            the detector's data preprocessor and backbone, neck and head.

    Returns:
        Number of quantizers that were started.

    Raises:
        ValueError: A negative value reached a quantizer with unsigned codes.
        UninitializedIntervalError: No data reached a quantizer.
    """
    run = run or _run_detector
    with calibrating(model) as pending, _batch_statistics(model):
        if pending:
            for batch in batches:
                run(model, batch)
    for quantizer in pending:
        for parameter in quantizer.parameters():
            all_reduce(parameter.data, op='mean')
    return len(pending)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module trains or evaluates as it did before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _run_detector(model: nn.Module, batch: dict) -> None:
    data = model.data_preprocessor(batch, training=False)
    model(**data, mode='tensor')


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Run BN on batch statistics and restore everything that this changes."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            for norm, buffers in zip(norms, kept):
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])
