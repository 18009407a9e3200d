"""Parameterized clipping activation (PACT), arXiv:1805.06085, as a kernel.

The clipping length alpha is floored as the interval of LIQ is.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import FakeQuantizeKernel, dot
from .liq import floor_interval
from .ranges import unsigned_qmax
from .rounding import round_half_even


class _Clipping(NamedTuple):
    alpha: Tensor
    scale: Tensor


@dataclass(frozen=True)
class PACTActivationKernel(FakeQuantizeKernel):
    """PACT of a non-negative tensor: clipped to [0, alpha], levels alpha q/n with q in 0..n.

    The levels are those of LIQ; the gradient of alpha is another, it takes no part in rounding:
    dQ/dx = 1 on 0 <= x < alpha; dQ/dalpha = 1 on x >= alpha, else 0.

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

    def prepare(self, x: Tensor, alpha: Tensor) -> _Clipping:
        floored = floor_interval(alpha)
        return _Clipping(floored, floored / self.qmax)

    def _write_codes(self, out: Tensor, x: Tensor, prepared: _Clipping) -> None:
        torch.div(x, prepared.alpha, out=out)
        round_half_even(out.clamp_(0, 1).mul_(self.qmax), out=out)

    def _dequantize(self, codes: Tensor, prepared: _Clipping) -> None:
        codes.mul_(prepared.scale)

    def _gradients(self, grad: Tensor, x: Tensor, quantized: Tensor,
                   prepared: _Clipping) -> tuple[Tensor]:
        mask = torch.ge(x, prepared.alpha, out=torch.empty_like(x))
        grad_alpha = dot(mask, grad)
        # Inside is where x >= 0 and not x >= alpha.
        inside = torch.ge(x, 0, out=torch.empty_like(x)).sub_(mask)
        grad.mul_(inside)
        return (grad_alpha, )
