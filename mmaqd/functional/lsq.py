"""Learned step size quantization: LSQ, arXiv:1902.08153, and LSQ+, arXiv:2004.09576, as kernels.

The step size s is the real value of one integer step. It is floored as the interval of LIQ is. On
the edges of the range the gradient is that of the inside, as autograd takes it for a clip.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .grid import IntegerGrid, twos_complement_grid, unsigned_grid
from .kernels import FakeQuantizeKernel, per_channel
from .liq import (clipped_gradients, features_of_a_sample, floor_interval, lsq_gradient_factor,
                  weights_sharing)
from .rounding import round_half_even


class _StepTerms(NamedTuple):
    step_size: Tensor
    scale: Tensor  # the step size, to be broadcast over the tensor


class _StepSizeKernel(FakeQuantizeKernel):
    """s round(clip(x/s, qmin, qmax)); a subclass says which range, and which N its factor has.

    dQ/dx = 1 inside, 0 outside; dQ/ds = code - x/s inside, the code outside.
    """

    def scale(self, step_size: Tensor) -> Tensor:
        """Real value of one integer step; the shape of ``step_size``."""
        return floor_interval(step_size)

    def terms(self, x: Tensor, step_size: Tensor) -> _StepTerms:
        floored = floor_interval(step_size)
        return _StepTerms(floored, per_channel(floored, x, self.axis))

    def _write_codes(self, out: Tensor, x: Tensor, terms: _StepTerms) -> None:
        grid = self.grid
        torch.div(x, terms.scale, out=out)
        round_half_even(out.clamp_(grid.qmin, grid.qmax), out=out)

    def _dequantize(self, codes: Tensor, terms: _StepTerms) -> None:
        codes.mul_(terms.scale)

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor,
                   terms: _StepTerms) -> tuple[Tensor]:
        qmin = self.qmin
        low, high = terms.scale * qmin if qmin else 0, terms.scale * self.qmax
        total = clipped_gradients(grad, x, fake_quantized, low, high, self.axis)
        return (total / terms.step_size, )


@dataclass(frozen=True)
class LSQWeightKernel(_StepSizeKernel):
    """LSQ of weights: grid points s k with the integers k of -2^(b-1)..2^(b-1) - 1.

    Args:
        bit_width: b, 2 to 8.
        axis: The axis with a step size per index, None for one step size.
    """

    bit_width: int
    axis: int | None = None

    @property
    def grid(self) -> IntegerGrid:
        return twos_complement_grid(self.bit_width)

    def parameter_gradient_factor(self, x: Tensor) -> float:
        return lsq_gradient_factor(weights_sharing(x, self.axis), self.qmax)


class _UnsignedCodes(FakeQuantizeKernel):
    """Codes 0..2^b - 1, and the gradient factor of activations.

    Its N is the number of features of the layer, which is that of one sample: the factor does not
    depend on the batch size.
    """

    @property
    def grid(self) -> IntegerGrid:
        return unsigned_grid(self.bit_width)

    def parameter_gradient_factor(self, x: Tensor) -> float:
        return lsq_gradient_factor(features_of_a_sample(x), self.qmax)


@dataclass(frozen=True)
class LSQActivationKernel(_UnsignedCodes, _StepSizeKernel):
    """LSQ of a non-negative tensor: grid points s q with q in 0..2^b - 1.

    Signed, of a tensor of either sign: q in -2^(b-1)..2^(b-1) - 1.

    Args:
        bit_width: b, 2 to 8.
        signed: Whether negative numbers are quantized, not clipped to zero.
    """

    bit_width: int
    signed: bool = False

    @property
    def grid(self) -> IntegerGrid:
        make = twos_complement_grid if self.signed else unsigned_grid
        return make(self.bit_width)


class _OffsetTerms(NamedTuple):
    step_size: Tensor
    offset: Tensor
    high: Tensor


@dataclass(frozen=True)
class LSQPlusActivationKernel(_UnsignedCodes):
    """LSQ+ of a tensor of either sign: grid points s q + beta with q in 0..2^b - 1.

    Signed codes would change nothing but the meaning of beta, so there is no such option.

    dQ/dx and dQ/ds as for LSQ; dQ/dbeta = 0 inside, 1 outside. Both parameters' gradients are
    multiplied by the gradient factor of LSQ.

    Args:
        bit_width: b, 2 to 8.
    """

    bit_width: int

    @property
    def takes_negative(self) -> bool:
        return True

    def scale(self, step_size: Tensor, offset: Tensor) -> Tensor:
        """Real value of one integer step."""
        return floor_interval(step_size)

    def offset(self, step_size: Tensor, offset: Tensor) -> Tensor:
        return offset

    def terms(self, x: Tensor, step_size: Tensor, offset: Tensor) -> _OffsetTerms:
        floored = floor_interval(step_size)
        return _OffsetTerms(floored, offset, offset + floored * self.qmax)

    def _write_codes(self, out: Tensor, x: Tensor, terms: _OffsetTerms) -> None:
        torch.sub(x, terms.offset, out=out).div_(terms.step_size)
        round_half_even(out.clamp_(0, self.qmax), out=out)

    def _dequantize(self, codes: Tensor, terms: _OffsetTerms) -> None:
        codes.mul_(terms.step_size).add_(terms.offset)

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor,
                   terms: _OffsetTerms) -> tuple[Tensor, Tensor]:
        outside = grad.clone()
        total = clipped_gradients(grad, x, fake_quantized, terms.offset, terms.high)
        grad_offset = outside.sub_(grad).sum()
        # Outside, Q(x) is beta more than the code times s.
        return (total - terms.offset * grad_offset) / terms.step_size, grad_offset
