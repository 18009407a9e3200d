"""What all quantizers share: the learned interval, its start, and the state in checkpoints."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel, fake_quantize, least_error_interval
from mmaqd.functional.kernels import compute_dtype
from mmaqd.functional.liq import MIN_INTERVAL

STARTS = ('least_error', 'max', 'constant')
_SAMPLES_PER_CALL = 2**13
_MAX_START_FRACTION = 0.8


class UninitializedIntervalError(RuntimeError):
    """A quantizer was used before its interval had a value."""


class CheckpointMismatchError(ValueError):
    """A checkpoint was made by another model than the one that loads it."""


class IntervalQuantizer(nn.Module):
    """Base of the quantizers with a learned interval: float tensor to fake-quantized float tensor.

    A subclass sets :attr:`kernel` and says how samples are taken (:meth:`_sample`).

    Args:
        kernel: The quantization itself.
        num_channels: Number of intervals, None for one interval.
        start: Where the interval starts. ``'least_error'``: least squared error on the samples
            seen while calibrating. ``'max'``: 0.8 max|x|, averaged over the calls seen.
            ``'constant'``: ``start_value``, at once.
        start_value: Positive, for ``start='constant'``.

    Attributes:
        interval: The learned parameter, () or (num_channels,).
        initialized: Buffer, bool: whether the interval has its start value (or a learned one).
        bits: Buffer, the bit width, by which a checkpoint of other bits is recognized.
        name: Name of the quantizer in its model, for messages.

    Raises:
        ValueError: ``start`` is unknown or ``start_value`` is not positive.
    """

    def __init__(self, kernel: FakeQuantizeKernel, num_channels: Optional[int], start: str,
                 start_value: float) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f'{type(self).__name__}: start must be one of {STARTS}, but got '
                             f'{start!r}.')
        if not start_value > 0:
            raise ValueError(f'{type(self).__name__}: start_value must be positive, but got '
                             f'{start_value!r}.')
        self.kernel = kernel
        self.start = start
        self.name = type(self).__name__
        shape = () if num_channels is None else (num_channels, )
        self.interval = nn.Parameter(torch.full(shape, float(start_value)))
        self.register_buffer('initialized', torch.tensor(start == 'constant'))
        self.register_buffer('bits', torch.tensor(kernel.bit_width))
        self.calibrating = False
        self._samples: list[Tensor] = []
        self._known_initialized = False

    @property
    def bit_width(self) -> int:
        """Number of bits of a code."""
        return self.kernel.bit_width

    @property
    def qmax(self) -> int:
        """Largest code."""
        return self.kernel.qmax

    @property
    def scale(self) -> Tensor:
        """Real value of one integer step, the shape of the interval; not differentiable."""
        return self.kernel.scale(self.interval.detach())

    @property
    def kernel_parameters(self) -> tuple[Tensor, ...]:
        """What :attr:`kernel` takes besides the tensor.

        Raises:
            UninitializedIntervalError: The interval has no value yet.
        """
        # The buffer is read once, not in every forward: on a GPU each look would wait for it.
        if not self._known_initialized:
            if not bool(self.initialized):
                raise UninitializedIntervalError(
                    f'{self.name}: the interval was never initialized. Train with the hook '
                    'mmaqd.InitializeIntervalsHook, run mmaqd.quantizers.calibrate(model, '
                    'batches), or load the checkpoint of a trained low-bit model (a float '
                    'checkpoint has no intervals).')
            self._known_initialized = True
        if self.training:
            # The optimizer may have stepped below zero. `.data`, because a shared conv has saved
            # this parameter for the backward pass when it comes here for the next level.
            self.interval.data.clamp_(min=MIN_INTERVAL)
        return (self.interval, )

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating:
            self.observe(x)
            return x
        return fake_quantize(x, self.kernel, *self.kernel_parameters)

    @torch.no_grad()
    def quantize(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, so that ``codes * scale`` is the fake-quantized tensor."""
        return self.kernel.codes(compute_dtype(x), *self.kernel_parameters).to(self.code_dtype)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take samples of ``x``, from which the interval will start; an empty ``x`` gives none."""
        if not x.numel():
            return
        rows = self._rows(compute_dtype(x))
        if self.start == 'max':
            self._samples.append(rows.abs().amax(dim=1, keepdim=True))
        else:
            self._samples.append(self._subsample(rows))

    @torch.no_grad()
    def initialize(self) -> None:
        """Start the interval from the samples observed, and forget them.

        Raises:
            UninitializedIntervalError: Nothing was observed.
        """
        if not self._samples:
            raise UninitializedIntervalError(
                f'{self.name}: no data reached the quantizer while calibrating. Is its layer '
                'used in the forward pass? If not, exclude it by a rule.')
        samples = torch.cat(self._samples, dim=1)
        self._samples = []
        if not samples.any():
            print_log(
                f'{self.name}: only zeros were seen while calibrating; the interval starts '
                'at 1.',
                'current',
                level=30)
        if self.start == 'max':
            start = _MAX_START_FRACTION * samples.mean(dim=1)
            start = torch.where(start > 0, start, torch.ones_like(start))
        else:
            start = least_error_interval(samples, self._fake_quantize_rows)
        self.interval.copy_(start.view_as(self.interval))
        self.initialized.fill_(True)

    def _rows(self, x: Tensor) -> Tensor:
        """(R, N) view of what is quantized, a row for each interval."""
        raise NotImplementedError

    def _fake_quantize_rows(self, rows: Tensor, interval: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def _subsample(rows: Tensor) -> Tensor:
        wanted = max(_SAMPLES_PER_CALL // rows.shape[0], 256)
        # Odd: a step that is a multiple of the width of a map would sample one column of it.
        step = rows.shape[1] // wanted | 1
        return rows[:, ::step].clone()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any,
                              **kwargs: Any) -> None:
        own = self.state_dict(prefix=prefix)
        if not any(key in state_dict for key in own):
            # A float checkpoint: the interval is calibrated after loading.
            state_dict.update(own)
        bits = int(state_dict.get(f'{prefix}bits', self.bits))
        if bits != self.bit_width:
            raise CheckpointMismatchError(
                f'{prefix[:-1] or self.name}: the checkpoint holds a quantizer of {bits} bits, '
                f'the model has one of {self.bit_width} bits. Use the config that the checkpoint '
                'was trained with, or start from a float checkpoint.')
        interval = state_dict.get(f'{prefix}interval', self.interval)
        if interval.shape != self.interval.shape:
            raise CheckpointMismatchError(
                f'{prefix[:-1] or self.name}: the interval of the checkpoint has the shape '
                f'{tuple(interval.shape)}, that of the model {tuple(self.interval.shape)}. Set '
                'axis (None: one interval; 0: one per output channel) as in the config that the '
                'checkpoint was trained with.')
        self._known_initialized = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        granularity = 'per_tensor' if self.interval.dim() == 0 else 'per_channel'
        return f'bit_width={self.bit_width}, {granularity}, start={self.start!r}'


@contextmanager
def calibrating(model: nn.Module) -> Iterator[list[IntervalQuantizer]]:
    """Let the quantizers of ``model`` that have no interval yet observe what passes through.

    Inside the block these quantizers pass their input on unchanged. At its end their intervals
    start from what they saw. Quantizers that are initialized already are left alone.

    Yields:
        The quantizers that observe; empty when all are initialized.
    """
    pending = [
        module for module in model.modules()
        if isinstance(module, IntervalQuantizer) and not bool(module.initialized)
    ]
    for quantizer in pending:
        quantizer.calibrating = True
        quantizer._samples.clear()  # of a calibration that failed
    try:
        yield pending
    finally:
        for quantizer in pending:
            quantizer.calibrating = False
    for quantizer in pending:
        quantizer.initialize()
