"""DoReFa, arXiv:1606.06160, as kernels: fixed ranges, nothing is learned."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import IntegerGrid, symmetric_weight_grid, unsigned_grid
from .kernels import FakeQuantizeKernel, compute_dtype
from .liq import LIQWeightKernel, floor_interval
from .rounding import round_half_even


@dataclass(frozen=True)
class DoReFaActivationKernel(FakeQuantizeKernel):
    """DoReFa of a non-negative tensor: clipped to [0, c], grid points c q/n with q in 0..n.

    dQ/dx = 1 on 0 <= x <= c, else 0.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
        clip: c, positive; 1 in the paper.
    """

    bit_width: int
    clip: float = 1.0

    @property
    def grid(self) -> IntegerGrid:
        return unsigned_grid(self.bit_width)

    def scale(self) -> float:
        """Real value of one integer step, c/n."""
        return self.clip / self.qmax

    def terms(self, x: Tensor) -> None:
        return None

    def _write_codes(self, out: Tensor, x: Tensor, _: None) -> None:
        torch.div(x, self.clip, out=out)
        round_half_even(out.clamp_(0, 1).mul_(self.qmax), out=out)

    def _dequantize(self, codes: Tensor, _: None) -> None:
        codes.mul_(self.scale())

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor, _: None) -> tuple:
        inside = x.clamp(0, self.clip)
        grad.mul_(torch.eq(inside, x, out=inside))
        return ()


@dataclass(frozen=True)
class DoReFaWeightKernel(FakeQuantizeKernel):
    """DoReFa of weights: t = tanh(w) / max|tanh(w)|, rounded to grid points in [-1, 1].

    These are k/n with odd k in -n..n, n = 2^b - 1; at 8 bits k runs over the integers
    -127..127 and n = 127, as in :class:`mmaqd.functional.LIQWeightKernel`. The maximum is that of
    the whole tensor, and its derivative is part of the gradient.

    Args:
        bit_width: b, 2 to 8. (For one bit the paper has another formula.)
    """

    bit_width: int

    @property
    def grid(self) -> IntegerGrid:
        return symmetric_weight_grid(self.bit_width)

    def scale(self) -> float:
        """Real value of one integer step, 1/n."""
        return 1 / self.qmax

    @property
    def normalizes(self) -> bool:
        return True

    def normalized(self, w: Tensor) -> Tensor:
        """What is rounded, t."""
        bounded = torch.tanh(w)
        return bounded.div_(_largest(bounded))

    def codes(self, w: Tensor) -> Tensor:
        """Integer codes -n..n of ``w``, as floating-point values."""
        bounded = torch.tanh(w)
        # The grid points are those of LIQ with the interval max|tanh(w)|, over this interval.
        return LIQWeightKernel(self.bit_width).codes(bounded, _largest(bounded))

    # The maximum and its gradient belong to the whole tensor, so there are no parts here.

    def bind(self, w: Tensor) -> DoReFaWeightKernel:
        return self

    def fake_quantize(self, w: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The fake-quantized weights in ``dtype``, by default that of ``w``."""
        return self.codes(compute_dtype(w)).mul_(self.scale()).to(dtype or w.dtype)

    def gradients(self, grad: Tensor, w: Tensor, fake_quantized: Tensor) -> tuple[Tensor]:
        """dQ/dw = dt/dw: rounding passes the gradient on as it is."""
        grad, bounded = compute_dtype(grad), torch.tanh(compute_dtype(w))
        largest = _largest(bounded)
        at_largest = bounded.abs()
        torch.eq(at_largest, largest, out=at_largest)
        grad_w = grad * bounded
        # The gradient of the maximum goes to the weights that have it, with their sign, which is
        # tanh(w) over the maximum there.
        share = -grad_w.sum() / (largest**3 * at_largest.sum().clamp_min(1))
        torch.div(grad, largest, out=grad_w)
        grad_w.addcmul_(at_largest.mul_(share), bounded)
        return (grad_w.addcmul_(grad_w, bounded.square_(), value=-1).to(w.dtype), )


def _largest(bounded: Tensor) -> Tensor:
    """max|tanh(w)|, kept above zero."""
    return floor_interval(bounded.abs().amax())
