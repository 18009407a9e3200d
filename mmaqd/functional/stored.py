"""Quantization of weights whose codes are stored: they are on the grid already."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import IntegerGrid
from .kernels import FakeQuantizeKernel, per_channel
from .rounding import round_half_even


@dataclass(frozen=True)
class StoredWeightKernel(FakeQuantizeKernel):
    """The grid points ``scale * code`` of weights that were quantized before, by whatever family.

    Weights on the grid are left as they are, bit for bit, and have the codes that they had. The
    only parameter is the scale; nothing is normalized, as the grid points hold that already.

    Args:
        limits: qmin, qmax and step of the grid.
        axis: The axis with a scale per index, None for one scale.
    """

    limits: tuple[int, int, int]
    axis: int | None = None

    @property
    def grid(self) -> IntegerGrid:
        return IntegerGrid(*self.limits)

    @property
    def bit_width(self) -> int:
        """Number of bits of a code."""
        return self.grid.bit_width

    def scale(self, scale: Tensor) -> Tensor:
        """Real value of one integer step: the parameter."""
        return scale

    def terms(self, w: Tensor, scale: Tensor) -> Tensor:
        return per_channel(scale, w, self.axis)

    def _write_codes(self, out: Tensor, w: Tensor, scale: Tensor) -> None:
        qmin, qmax, step = self.limits
        # A grid point over the scale is less than 0.001 from its code, whatever the rounding.
        indices = torch.div(w, scale, out=out).sub_(qmin).div_(step)
        round_half_even(indices.clamp_(0, (qmax - qmin) // step), out=out).mul_(step).add_(qmin)

    def _dequantize(self, codes: Tensor, scale: Tensor) -> None:
        codes.mul_(scale)

    def _gradients(self, grad: Tensor, w: Tensor, fake_quantized: Tensor,
                   scale: Tensor) -> tuple[Tensor]:
        zero = torch.zeros_like(scale)
        return (zero if self.axis is None else zero.flatten(), )
