"""Parameterized clipping activation (PACT), arXiv:1805.06085, as a kernel.

The clipping length alpha is floored as the interval of LIQ is.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import dot
from .liq import IntervalKernel, IntervalTerms


@dataclass(frozen=True)
class PACTActivationKernel(IntervalKernel):
    """PACT of a non-negative tensor: clipped to [0, alpha], grid points alpha q/n with q in 0..n.

    They are those of LIQ; the gradient of alpha is another, it takes no part in rounding:
    dQ/dx = 1 on 0 <= x < alpha; dQ/dalpha = 1 on x >= alpha, else 0.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
    """

    bit_width: int

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor,
                   terms: IntervalTerms) -> tuple[Tensor]:
        mask = torch.ge(x, terms.interval, out=torch.empty_like(x))
        grad_alpha = dot(mask, grad)
        # Inside is where x >= 0 and not x >= alpha.
        inside = torch.ge(x, 0, out=torch.empty_like(x)).sub_(mask)
        grad.mul_(inside)
        return (grad_alpha, )
