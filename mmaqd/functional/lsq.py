"""Learned step size quantization: LSQ, arXiv:1902.08153, and LSQ+, arXiv:2004.09576, as kernels.

The step size s is the real value of one integer step. It is floored as the interval of LIQ is. On
the edges of the range the gradient is that of the inside, as autograd takes it for a clip.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from .kernels import per_channel, sum_over
from .liq import features_of_a_sample, floor_interval, gradient_and_error, lsq_gradient_factor
from .ranges import unsigned_qmax
from .rounding import round_half_even


class _StepSizeKernel:
    """s round(clip(x/s, qmin, qmax)); a subclass says which range, and which N its factor has."""

    bit_width: int
    axis: Optional[int] = None

    @property
    def qmin(self) -> int:
        """Smallest code."""
        raise NotImplementedError

    @property
    def qmax(self) -> int:
        """Largest code."""
        raise NotImplementedError

    def scale(self, step_size: Tensor) -> Tensor:
        """Real value of one integer step; the shape of ``step_size``."""
        return floor_interval(step_size)

    def codes(self, x: Tensor, step_size: Tensor) -> Tensor:
        """Integer codes qmin..qmax of ``x``, as floating-point values."""
        return round_half_even(self._ratio(x, step_size).clamp_(self.qmin, self.qmax))

    def forward(self, x: Tensor, step_size: Tensor) -> Tensor:
        return self.codes(x, step_size).mul_(per_channel(self.scale(step_size), x, self.axis))

    def backward(self, grad: Tensor, x: Tensor, quantized: Tensor,
                 step_size: Tensor) -> tuple[Tensor, Tensor]:
        """dQ/dx = 1 inside, 0 outside; dQ/ds = code - x/s inside, the code outside."""
        grad_x, error = gradient_and_error(grad, x, self._ratio(x, step_size), quantized, self.qmin,
                                           self.qmax)
        factor = lsq_gradient_factor(self._num_sharing(x, step_size), self.qmax)
        return grad_x, sum_over(error, self.axis) / floor_interval(step_size) * factor

    def _ratio(self, x: Tensor, step_size: Tensor) -> Tensor:
        return x / per_channel(floor_interval(step_size), x, self.axis)

    def _num_sharing(self, x: Tensor, step_size: Tensor) -> int:
        """N of the gradient factor 1/sqrt(N qmax)."""
        raise NotImplementedError


@dataclass(frozen=True)
class LSQWeightKernel(_StepSizeKernel):
    """LSQ of weights: levels s k with the integers k of -2^(b-1)..2^(b-1) - 1.

    Args:
        bit_width: b, 2 to 8.
        axis: The axis with a step size per index, None for one step size.
    """

    bit_width: int
    axis: Optional[int] = None

    @property
    def qmin(self) -> int:
        return -2**(self.bit_width - 1)

    @property
    def qmax(self) -> int:
        return 2**(self.bit_width - 1) - 1

    def _num_sharing(self, x: Tensor, step_size: Tensor) -> int:
        return x.numel() // max(step_size.numel(), 1)


@dataclass(frozen=True)
class LSQActivationKernel(_StepSizeKernel):
    """LSQ of a non-negative tensor: levels s q with q in 0..2^b - 1.

    N of the gradient factor is the number of features of the layer, which is that of one sample:
    the factor does not depend on the batch size.

    Args:
        bit_width: b, 2 to 8.
    """

    bit_width: int

    @property
    def qmin(self) -> int:
        return 0

    @property
    def qmax(self) -> int:
        return unsigned_qmax(self.bit_width)

    def _num_sharing(self, x: Tensor, step_size: Tensor) -> int:
        return features_of_a_sample(x)


@dataclass(frozen=True)
class LSQPlusActivationKernel:
    """LSQ+ of a tensor of either sign: levels s q + beta with q in 0..2^b - 1.

    Both gradients are multiplied by the gradient factor of LSQ.

    Args:
        bit_width: b, 2 to 8.
    """

    bit_width: int

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        return unsigned_qmax(self.bit_width)

    def scale(self, step_size: Tensor, offset: Tensor) -> Tensor:
        """Real value of one integer step."""
        return floor_interval(step_size)

    def codes(self, x: Tensor, step_size: Tensor, offset: Tensor) -> Tensor:
        """Integer codes 0..qmax of ``x``, as floating-point values."""
        return round_half_even(self._ratio(x, step_size, offset).clamp_(0, self.qmax))

    def forward(self, x: Tensor, step_size: Tensor, offset: Tensor) -> Tensor:
        return self.codes(x, step_size, offset).mul_(floor_interval(step_size)).add_(offset)

    def backward(self, grad: Tensor, x: Tensor, quantized: Tensor, step_size: Tensor,
                 offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dQ/dx and dQ/ds as for LSQ; dQ/dbeta = 0 inside, 1 outside."""
        grad_x, error = gradient_and_error(grad, x, self._ratio(x, step_size, offset), quantized, 0,
                                           self.qmax)
        total_error = error.sum()
        grad_offset = torch.sub(grad, grad_x, out=error).sum()
        # Outside, the error is Q(x), and that is beta more than the code times s.
        grad_step_size = (total_error - offset * grad_offset) / floor_interval(step_size)
        factor = lsq_gradient_factor(features_of_a_sample(x), self.qmax)
        return grad_x, grad_step_size * factor, grad_offset * factor

    @staticmethod
    def _ratio(x: Tensor, step_size: Tensor, offset: Tensor) -> Tensor:
        return (x - offset).div_(floor_interval(step_size))
