"""Search of the step size and the offset with the least squared quantization error."""
from __future__ import annotations

import torch
from torch import Tensor

from .grid import IntegerGrid
from .interval_search import least_error_interval
from .liq import floor_interval
from .rounding import round_half_even

_MAX_ROUNDS = 50


def least_error_step_size_and_offset(x: Tensor, qmax: int) -> tuple[Tensor, Tensor]:
    """Step size s and offset beta with the least squared error of s q + beta, q in 0..``qmax``.

    Rounding to the nearest grid point and fitting the line s q + beta to the samples of each point
    are repeated in turn, neither of which can increase the error, from two places: the best step
    size without an offset, and the best one with the offset at the smallest sample.

    Args:
        x: (N,) samples of either sign, N at least 1.
        qmax: Largest code.

    Returns:
        s and beta, both (); 1/``qmax`` and 0 for samples that are all zero.
    """
    found = [_refine(x, qmax, offset) for offset in (torch.zeros_like(x[0]), x.amin())]
    return min(found, key=lambda pair: float(_squared_error(x, qmax, *pair)))


def _codes(x: Tensor, qmax: int, step_size: Tensor, offset: Tensor) -> Tensor:
    return round_half_even(((x - offset) / floor_interval(step_size)).clamp_(0, qmax))


def _squared_error(x: Tensor, qmax: int, step_size: Tensor, offset: Tensor) -> Tensor:
    return (_codes(x, qmax, step_size, offset) * step_size + offset - x).square_().sum()


def _refine(x: Tensor, qmax: int, offset: Tensor) -> tuple[Tensor, Tensor]:
    step_size = least_error_interval((x - offset)[None], IntegerGrid(0, qmax))[0] / qmax
    codes = _codes(x, qmax, step_size, offset)
    for _ in range(_MAX_ROUNDS):
        centred = codes - codes.mean()
        variance = centred.square().sum()
        if variance == 0:  # one grid point holds all samples, so there is no line to fit
            break
        step_size = (centred * x).sum() / variance
        offset = x.mean() - step_size * codes.mean()
        last, codes = codes, _codes(x, qmax, step_size, offset)
        if torch.equal(codes, last):
            break
    return step_size, offset
