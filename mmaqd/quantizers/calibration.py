"""Initialize the learned parameters of a model's quantizers from data."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterable, Iterator

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from mmengine.logging import print_log

from .base import Quantizer
from .batch_statistics import batch_statistics
from .errors import CalibrationError
from .findings import describe, owners_of, unreached_of
from .lost_scale import describe_lost_scales, norms_behind
from .observers import stand_ins
from .zero_weights import check_zero_weights


@torch.no_grad()
def calibrate(model: nn.Module,
              batches: Iterable[Any],
              run: Callable[[nn.Module, Any], Any] | None = None,
              need_norms: bool = False) -> int:
    """Initialize the quantizers that have no interval yet from a few batches.

    The batches pass through the model with those quantizers inactive and with BN in the mode that
    training has it in: on statistics of the batch, or frozen by ``norm_eval``, ``frozen_stages`` or
    the like. BN's running statistics stay as they were. Under distributed training the parameters
    are averaged over the processes.

    Quantizers that need no data, as those of PACT and DoReFa, are checked with the same batches,
    unless they come from a checkpoint.

    Args:
        model: A model with quantizers. With none to initialize or to check, no batch is taken.
        batches: What ``run`` takes; a data loader's batches for a detector.
        run: Called as ``run(model, batch)`` for a forward pass. By default the batch goes through
            the detector's data preprocessor and backbone, neck and head, and through its loss too
            where a layer is used by that alone.
        need_norms: Whether weights that get another scale (normalized ones, those of DoReFa) are
            refused where no norm follows. Behind a frozen norm they always are.

    Returns:
        Number of quantizers that were initialized.

    Raises:
        CalibrationError: A negative value reached a quantizer with unsigned codes, no data reached
            a quantizer, or no norm takes another scale of weights back; all such faults in one
            error, which is a ValueError and an UninitializedIntervalError.
        ValueError: NaN or infinity among the data; weights of zeros that would not stay zero.
    """
    watch = _watch(model, batches, run, need_norms, starts=True)
    check_zero_weights(model, watch.watched)
    pending = watch.pending
    for quantizer in pending:
        for parameter in quantizer.parameters():
            all_reduce(parameter.data, op='mean')
    return len(pending)


@torch.no_grad()
def check_data(model: nn.Module,
               batches: Iterable[Any],
               run: Callable[[nn.Module, Any], Any] | None = None,
               need_norms: bool = False) -> None:
    """Look for the faults that :func:`calibrate` would find in the data, and start nothing.

    Args:
        model: A model with quantizers.
        batches: As for :func:`calibrate`, as is the rest.
        run: How a batch goes through the model.
        need_norms: Whether weights that get another scale need a norm behind them.

    Raises:
        CalibrationError, ValueError: As :func:`calibrate`, but not for weights of zeros.
    """
    _watch(model, batches, run, need_norms, starts=False)


def _watch(model: nn.Module, batches: Iterable[Any], run: Callable | None, need_norms: bool,
           starts: bool) -> _Watch:
    with batch_statistics(model), norms_behind(model) as behind:
        watch = _Watch(model, lambda: describe_lost_scales(model, behind, need_norms), starts)
        with watch:
            if watch.watched:
                _run_all(model, batches, run, watch)
    return watch


@contextmanager
def calibrating(model: nn.Module) -> Iterator[list[Quantizer]]:
    """Let the quantizers of ``model`` that have no interval yet observe what passes through.

    Inside the block other modules stand in for them, see :mod:`mmaqd.quantizers.observers`, which
    pass their input on unchanged. At its end they are initialized from what they saw. Quantizers
    that are initialized already quantize as ever; those whose values come from no checkpoint look
    at their data, too.

    Yields:
        The quantizers that observe; empty when all are initialized.

    Raises:
        CalibrationError: See :func:`calibrate`; no quantizer is initialized then.
    """
    with _Watch(model) as watch:
        yield watch.pending


@contextmanager
def observing(model: nn.Module) -> Iterator[set[nn.Module]]:
    """Let the fresh quantizers of ``model`` look at their data, start none and complain of nothing.

    Inside the block they pass their input on unchanged, and afterwards they are as before, but for
    what they know of their data (:attr:`ActivationQuantizer.lowest`).

    Yields:
        The layers that were called so far.
    """
    with _Watch(model, starts=False, judges=False) as watch:
        yield watch.called


class _Watch:
    """Lets quantizers look at their data within a block, and says what is wrong at its end."""

    def __init__(self,
                 model: nn.Module,
                 more_faults: Callable[[], list[str]] = list,
                 starts: bool = True,
                 judges: bool = True) -> None:
        quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
        self.model = model
        self.more_faults = more_faults
        self.starts, self.judges = starts, judges
        self.pending = [each for each in quantizers if not bool(each.initialized)]
        self.watched = [each for each in quantizers if each.is_fresh or each in self.pending]
        self.called: set[nn.Module] = set()

    @property
    def unreached(self) -> list[Quantizer]:
        """The quantizers that nothing has reached yet."""
        return unreached_of(self.model, self.watched, self.called)

    def __enter__(self) -> _Watch:
        for quantizer in self.watched:
            quantizer.forget()  # what a calibration that failed has seen
        self._block = ExitStack()
        for layer in owners_of(self.model, self.watched):
            handle = layer.register_forward_pre_hook(lambda layer, _: self.called.add(layer))
            self._block.callback(handle.remove)
        self._block.enter_context(stand_ins(self.model, self.watched))
        return self

    def __exit__(self, error_type: type | None, *_: Any) -> None:
        self._block.close()
        if error_type is None and self.judges:
            self._finish()

    def _finish(self) -> None:
        faults = describe(self.model, self.watched, self.called) + self.more_faults()
        if faults:
            raise CalibrationError('\n'.join(faults))
        if not self.starts:
            return
        for quantizer in self.pending:
            quantizer.initialize()
        for quantizer in self.watched:
            quantizer.is_fresh = False


def _run_all(model: nn.Module, batches: Iterable[Any], run: Callable | None, watch: _Watch) -> None:
    batch = None
    for batch in batches:
        (run or _run_detector)(model, batch)
    if run is None and batch is not None and watch.unreached:
        _run_loss(model, batch)


def _run_detector(model: nn.Module, batch: dict) -> None:
    data = model.data_preprocessor(batch, training=False)
    model(**data, mode='tensor')


def _run_loss(model: nn.Module, batch: dict) -> None:
    """Reach the layers that only the loss uses; where it can't be computed, they stay unreached."""
    try:
        data = model.data_preprocessor(batch, training=False)
        model(**data, mode='loss')
    except Exception as error:
        print_log(
            f'Layers that are used by the loss alone can not be calibrated: {error!r}.',
            'current',
            level=30)
