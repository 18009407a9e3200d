"""Learned interval quantization (LIQ), arXiv:2007.06919, as kernels.

The interval v is floored at :data:`MIN_INTERVAL`, with the gradient of the floored value, so that
it stays positive whatever the optimizer does and can grow again from the floor.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from .kernels import per_channel, sum_over
from .ranges import unsigned_qmax, weight_qmax
from .rounding import round_half_even

MIN_INTERVAL = 1e-6
_MIN_STD = 1e-12


def floor_interval(interval: Tensor) -> Tensor:
    """The interval that is used: at least :data:`MIN_INTERVAL`."""
    return interval.clamp_min(MIN_INTERVAL)


def lsq_gradient_factor(numel: int, qmax: int) -> float:
    """1 / sqrt(N n), the gradient scale of LSQ, arXiv:1902.08153; N = 1 for an empty tensor."""
    return (max(numel, 1) * qmax)**-0.5


def features_of_a_sample(x: Tensor) -> int:
    """N of that factor for activations (B, ...): the features of the layer, B not counted.

    A tensor of fewer than two dimensions is one sample.
    """
    return x.numel() // max(x.shape[0], 1) if x.dim() > 1 else x.numel()


def gradient_and_error(grad: Tensor,
                       x: Tensor,
                       ratio: Tensor,
                       quantized: Tensor,
                       minimum: int,
                       maximum: int = 1) -> tuple[Tensor, Tensor]:
    """Gradient of ``x``, and ``grad`` times Q(x) - x (inside) or Q(x) (outside).

    Inside is where ``ratio``, x over the length that is learned, lies in [minimum, maximum].
    ``ratio`` is overwritten: on a CPU most of the time of such passes goes into new memory, so
    there are only two tensors of it here.
    """
    inside = ratio.clamp(minimum, maximum)
    torch.eq(inside, ratio, out=inside)
    error = torch.addcmul(quantized, inside, x, value=-1, out=ratio).mul_(grad)
    return inside.mul_(grad), error


@dataclass(frozen=True)
class LIQActivationKernel:
    """LIQ of a non-negative tensor: levels v q/n with q in 0..n, n = 2^b - 1.

    Args:
        bit_width: b, 2 to 8.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), N the number of
            features of one sample.
    """

    bit_width: int
    gradient_factor: bool = False

    @property
    def qmax(self) -> int:
        return unsigned_qmax(self.bit_width)

    def scale(self, interval: Tensor) -> Tensor:
        """Real value of one integer step, v/n."""
        return floor_interval(interval) / self.qmax

    def codes(self, x: Tensor, interval: Tensor) -> Tensor:
        """Integer codes 0..n of ``x``, as floating-point values."""
        clipped = (x / floor_interval(interval)).clamp_(0, 1)
        return round_half_even(clipped.mul_(self.qmax))

    def forward(self, x: Tensor, interval: Tensor) -> Tensor:
        return self.codes(x, interval).mul_(self.scale(interval))

    def backward(self, grad: Tensor, x: Tensor, quantized: Tensor,
                 interval: Tensor) -> tuple[Tensor, Tensor]:
        """dQ/dx = 1 on 0 <= x <= v; dQ/dv = (Q(x) - x)/v there, 1 above, 0 below."""
        floored = floor_interval(interval)
        grad_x, error = gradient_and_error(grad, x, x / floored, quantized, minimum=0)
        grad_interval = error.sum() / floored
        if self.gradient_factor:
            grad_interval = grad_interval * lsq_gradient_factor(features_of_a_sample(x), self.qmax)
        return grad_x, grad_interval


@dataclass(frozen=True)
class LIQWeightKernel:
    """LIQ of weights, symmetric: levels v k/n with odd k in -n..n, n = 2^b - 1 (no zero level).

    At 8 bits k runs over the integers -127..127 and n = 127 (narrow range, with zero), because the
    odd codes would not fit int8.

    Args:
        bit_width: b, 1 to 8.
        normalize: Quantize (w - mean)/std, with mean and std of the whole tensor taken as
            constants in the backward pass (std of the population).
        axis: The axis with an interval per index, None for one interval.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), N the number of
            weights that share it.
    """

    bit_width: int
    normalize: bool = False
    axis: Optional[int] = None
    gradient_factor: bool = False

    @property
    def qmax(self) -> int:
        return weight_qmax(self.bit_width)

    def scale(self, interval: Tensor) -> Tensor:
        """Real value of one integer step, v/n; the shape of ``interval``."""
        return floor_interval(interval) / self.qmax

    def normalized(self, w: Tensor) -> Tensor:
        """What is quantized: ``w`` or (w - mean)/std."""
        return (w - w.mean()) / self._std(w) if self.normalize else w

    def codes(self, w: Tensor, interval: Tensor) -> Tensor:
        """Integer codes -n..n of ``w``, as floating-point values."""
        ratio = self.normalized(w) / per_channel(floor_interval(interval), w, self.axis)
        return self._codes(ratio.clamp_(-1, 1))

    def forward(self, w: Tensor, interval: Tensor) -> Tensor:
        scale = per_channel(self.scale(interval), w, self.axis)
        return self.codes(w, interval).mul_(scale)

    def backward(self, grad: Tensor, w: Tensor, quantized: Tensor,
                 interval: Tensor) -> tuple[Tensor, Tensor]:
        """dQ/dw = 1 on |w| <= v; dQ/dv = (Q(w) - w)/v there, sign(w) outside."""
        floored = floor_interval(interval)
        normalized = self.normalized(w)
        ratio = normalized / per_channel(floored, w, self.axis)
        grad_w, error = gradient_and_error(grad, normalized, ratio, quantized, minimum=-1)
        if self.normalize:
            grad_w = grad_w.div_(self._std(w))
        grad_interval = sum_over(error, self.axis) / floored
        if self.gradient_factor:
            shared_by = w.numel() // max(interval.numel(), 1)
            grad_interval = grad_interval * lsq_gradient_factor(shared_by, self.qmax)
        return grad_w, grad_interval

    def _codes(self, clipped: Tensor) -> Tensor:
        if self.bit_width == 8:
            return round_half_even(clipped * self.qmax)
        unsigned = round_half_even(((clipped + 1) / 2).mul_(self.qmax))
        return unsigned.mul_(2).sub_(self.qmax)

    @staticmethod
    def _std(w: Tensor) -> Tensor:
        return w.std(correction=0).clamp_min(_MIN_STD)
