"""Parameterized clipping activation (PACT), arXiv:1805.06085, as a kernel.

The clipping length alpha is floored as the interval of LIQ is.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .liq import floor_interval
from .ranges import unsigned_qmax
from .rounding import round_half_even


@dataclass(frozen=True)
class PACTActivationKernel:
    """PACT of a non-negative tensor: clipped to [0, alpha], levels alpha q/n with q in 0..n.

    The levels are those of LIQ; the gradient of alpha is another, it takes no part in rounding.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
    """

    bit_width: int

    @property
    def qmax(self) -> int:
        return unsigned_qmax(self.bit_width)

    def scale(self, alpha: Tensor) -> Tensor:
        """Real value of one integer step, alpha/n."""
        return floor_interval(alpha) / self.qmax

    def codes(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Integer codes 0..n of ``x``, as floating-point values."""
        clipped = (x / floor_interval(alpha)).clamp_(0, 1)
        return round_half_even(clipped.mul_(self.qmax))

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        return self.codes(x, alpha).mul_(self.scale(alpha))

    def backward(self, grad: Tensor, x: Tensor, quantized: Tensor,
                 alpha: Tensor) -> tuple[Tensor, Tensor]:
        """dQ/dx = 1 on 0 <= x < alpha; dQ/dalpha = 1 on x >= alpha, else 0."""
        mask = torch.ge(x, floor_interval(alpha), out=torch.empty_like(x))
        clipped = mask.mul_(grad)
        grad_alpha = clipped.sum()
        grad_x = grad - clipped
        return grad_x.mul_(torch.ge(x, 0, out=mask)), grad_alpha
