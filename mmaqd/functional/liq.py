"""Learned interval quantization (LIQ), arXiv:2007.06919, as kernels.

The interval v is floored at :data:`MIN_INTERVAL`, with the gradient of the floored value, so that
it stays positive whatever the optimizer does and can grow again from the floor.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import is_compiling
from .grid import IntegerGrid, narrow_grid, symmetric_weight_grid, unsigned_grid
from .kernels import BoundKernel, FakeQuantizeKernel, compute_dtype, dot, per_channel
from .ranges import MIN_INTERVAL
from .rounding import round_half_even
from .triton_liq import LIQOnGPU, fits

_MIN_STD = 1e-12


def floor_interval(interval: Tensor) -> Tensor:
    """The interval that is used: at least :data:`MIN_INTERVAL`."""
    return interval.clamp_min(MIN_INTERVAL)


def _step(floored: Tensor, qmax: int) -> Tensor:
    """v/n."""
    if _takes_numbers(floored):
        return floored / qmax
    # Elsewhere torch may multiply by the reciprocal of a number, which rounds twice.
    return floored / torch.full_like(floored, qmax)


def _takes_numbers(values: Tensor) -> bool:
    """Whether numbers are as exact as tensors: operations on a CPU, where they are also faster."""
    return values.is_cpu and not is_compiling()


def lsq_gradient_factor(numel: int, qmax: int) -> float:
    """1 / sqrt(N n), the gradient scale of LSQ, arXiv:1902.08153; N = 1 for an empty tensor."""
    return (max(numel, 1) * qmax)**-0.5


def features_of_a_sample(x: Tensor) -> int:
    """N of that factor for activations (B, ...): the features of the layer, B not counted.

    A tensor of fewer than two dimensions is one sample.
    """
    return x.numel() // max(x.shape[0], 1) if x.dim() > 1 else x.numel()


def weights_sharing(w: Tensor, axis: int | None) -> int:
    """N of that factor for weights: how many share a parameter."""
    return w.numel() if axis is None else w.numel() // max(w.shape[axis], 1)


def _clamp(x: Tensor, low: Tensor | int, high: Tensor) -> Tensor:
    if high.dim() or not _takes_numbers(high):  # a GPU would have to wait for the numbers
        return torch.clamp(x, low * high if isinstance(low, int) else low, high)
    highest = high.item()
    return torch.clamp(x, low * highest if isinstance(low, int) else low.item(), highest)


def clipped_gradients(grad: Tensor,
                      x: Tensor,
                      fake_quantized: Tensor,
                      low: Tensor | int,
                      high: Tensor,
                      axis: int | None = None) -> Tensor:
    """Gradients of a quantizer that clips to [low, high]; a number ``low`` is so often ``high``.

    ``grad`` is overwritten by the gradient of ``x``: itself inside, 0 outside. On a CPU most of the
    time of such operations goes into memory, so there are only two new tensors here.

    Returns:
        The sum over all axes but ``axis`` of ``grad`` times Q(x) - x inside and Q(x) outside.
    """
    inside = _clamp(x, low, high)
    # A mask of floats: multiplying by one of bools takes several times as long on a CPU.
    torch.eq(inside, x, out=inside)
    error = torch.addcmul(fake_quantized, inside, x, value=-1)
    total = dot(error, grad, axis)
    grad.mul_(inside)
    return total


class IntervalTerms(NamedTuple):
    """The floored interval and the scale that goes with it."""

    interval: Tensor
    scale: Tensor


class _WeightTerms(NamedTuple):
    interval: Tensor
    spread: Tensor  # the interval, to be broadcast over the weights
    scale: Tensor
    mean: Tensor | None
    std: Tensor | None


class IntervalKernel(FakeQuantizeKernel):
    """Grid points v q/n with q in 0..n, n = 2^b - 1; a subclass says what the gradients are.

    With a grid of signed codes q in -n..n.
    """

    @property
    def grid(self) -> IntegerGrid:
        return unsigned_grid(self.bit_width)

    def scale(self, interval: Tensor) -> Tensor:
        """Real value of one integer step, v/n."""
        return _step(floor_interval(interval), self.qmax)

    def terms(self, x: Tensor, interval: Tensor) -> IntervalTerms:
        floored = floor_interval(interval)
        return IntervalTerms(floored, _step(floored, self.qmax))

    def _write_codes(self, out: Tensor, x: Tensor, terms: IntervalTerms) -> None:
        grid = self.grid
        torch.div(x, terms.interval, out=out)
        round_half_even(out.clamp_(-1 if grid.signed else 0, 1).mul_(grid.qmax), out=out)

    def _dequantize(self, codes: Tensor, terms: IntervalTerms) -> None:
        codes.mul_(terms.scale)


@dataclass(frozen=True)
class LIQActivationKernel(IntervalKernel):
    """LIQ of a non-negative tensor: grid points v q/n with q in 0..n, n = 2^b - 1.

    dQ/dx = 1 on 0 <= x <= v; dQ/dv = (Q(x) - x)/v there, 1 above, 0 below.

    Signed, of a tensor of either sign: grid points v q/n with q in -n..n, n = 2^(b-1) - 1, zero
    among them; dQ/dx = 1 on |x| <= v; dQ/dv = (Q(x) - x)/v there, sign(x) outside.

    Args:
        bit_width: b, 2 to 8.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), N the number of
            features of one sample.
        signed: Whether negative numbers are quantized, not clipped to zero.
    """

    bit_width: int
    gradient_factor: bool = False
    signed: bool = False

    @property
    def grid(self) -> IntegerGrid:
        return narrow_grid(self.bit_width) if self.signed else unsigned_grid(self.bit_width)

    def parameter_gradient_factor(self, x: Tensor) -> float:
        if not self.gradient_factor:
            return 1.0
        return lsq_gradient_factor(features_of_a_sample(x), self.qmax)

    def bind(self, x: Tensor, interval: Tensor) -> BoundKernel:
        if not fits(x, interval):
            return super().bind(x, interval)
        return LIQOnGPU(self.grid, interval, factor=self.parameter_gradient_factor(x))

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor,
                   terms: IntervalTerms) -> tuple[Tensor]:
        interval = terms.interval
        total = clipped_gradients(grad, x, fake_quantized, -1 if self.signed else 0, interval)
        return (total / interval, )


@dataclass(frozen=True)
class LIQWeightKernel(FakeQuantizeKernel):
    """LIQ of weights, symmetric: grid points v k/n with odd k in -n..n, n = 2^b - 1 (zero is none).

    At 8 bits k runs over the integers -127..127 and n = 127 (narrow range, with zero), because the
    odd codes would not fit int8.

    dQ/dw = 1 on |w| <= v; dQ/dv = (Q(w) - w)/v there, sign(w) outside.

    Args:
        bit_width: b, 1 to 8.
        normalize: Quantize (w - mean)/std, with mean and std of the whole tensor taken as
            constants in the backward pass (std of the population).
        axis: The axis with an interval per index, None for one interval.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), N the number of
            weights that share it.
        center: False: quantize w/std instead, which a BN behind the conv makes up for exactly.
    """

    bit_width: int
    normalize: bool = False
    axis: int | None = None
    gradient_factor: bool = False
    center: bool = True

    @property
    def grid(self) -> IntegerGrid:
        return symmetric_weight_grid(self.bit_width)

    def scale(self, interval: Tensor) -> Tensor:
        """Real value of one integer step, v/n; the shape of ``interval``."""
        return _step(floor_interval(interval), self.qmax)

    @property
    def normalizes(self) -> bool:
        return self.normalize

    @property
    def shifts(self) -> bool:
        return self.normalize and self.center

    def terms(self, w: Tensor, interval: Tensor) -> _WeightTerms:
        floored = floor_interval(interval)
        spread = per_channel(floored, w, self.axis)
        return _WeightTerms(floored, spread, _step(spread, self.qmax), *self._statistics(w))

    def parameter_gradient_factor(self, w: Tensor) -> float:
        if not self.gradient_factor:
            return 1.0
        return lsq_gradient_factor(weights_sharing(w, self.axis), self.qmax)

    def bind(self, w: Tensor, interval: Tensor) -> BoundKernel:
        if self.axis is not None or not fits(w, interval):
            return super().bind(w, interval)
        return LIQOnGPU(self.grid, interval, *self._statistics(w),
                        self.parameter_gradient_factor(w))

    def normalized(self, w: Tensor) -> Tensor:
        """What is quantized: ``w``, (w - mean)/std, or w/std without ``center``."""
        return _shifted(w, *self._statistics(w)) if self.normalize else w

    def _write_codes(self, out: Tensor, w: Tensor, terms: _WeightTerms) -> None:
        qmax = self.qmax
        normalized = _shifted(w, terms.mean, terms.std, out)
        torch.div(normalized, terms.spread, out=out).clamp_(-1, 1)
        if self.bit_width == 8:
            round_half_even(out.mul_(qmax), out=out)
        else:
            round_half_even(out.add_(1).mul_(qmax / 2), out=out).mul_(2).sub_(qmax)

    def _dequantize(self, codes: Tensor, terms: _WeightTerms) -> None:
        codes.mul_(terms.scale)

    def _gradients(self, grad: Tensor, w: Tensor, fake_quantized: Tensor,
                   terms: _WeightTerms) -> tuple[Tensor]:
        normalized = _shifted(w, terms.mean, terms.std)
        total = clipped_gradients(grad, normalized, fake_quantized, -1, terms.spread, self.axis)
        if terms.std is not None:
            grad.div_(terms.std)
        return (total / terms.interval, )

    def _statistics(self, w: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if not self.normalize:
            return None, None
        w = compute_dtype(w)
        return w.mean() if self.center else None, w.std(correction=0).clamp_min(_MIN_STD)


def _shifted(w: Tensor,
             mean: Tensor | None,
             std: Tensor | None,
             out: Tensor | None = None) -> Tensor:
    """(w - mean)/std, without what is None."""
    if std is None:
        return w
    if mean is None:
        return torch.div(w, std, out=out)
    return torch.sub(w, mean, out=out).div_(std)
