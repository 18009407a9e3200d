"""Requantization: integer accumulators to codes by a multiplier and a shift, in integers only."""
from __future__ import annotations

import torch
from torch import Tensor


def requantize(accumulators: Tensor, multiplier: Tensor, shift: Tensor, qmin: int,
               qmax: int) -> Tensor:
    """clip(a M / 2^k, qmin, qmax), rounded to the nearest integer, half to even.

    It is the rounding of :func:`mmaqd.functional.round_half_even`, done by an addition and a shift:
    (a M + 2^(k-1) - 1 + bit k of a M) >> k.

    Args:
        accumulators: a, integers of any shape and integer dtype, below 2^31 in size.
        multiplier: M, int64, broadcast over ``accumulators``, below 2^24.
        shift: k, int64, 1 to 40, of the shape of ``multiplier``.
        qmin: Smallest code.
        qmax: Largest code.

    Returns:
        Codes, int64, of the shape of ``accumulators``.

    Example:
        >>> a = torch.tensor([-3, 1, 2, 6, 100])
        >>> requantize(a, torch.tensor(3), torch.tensor(2), 0, 15)  # 3/4 a
        tensor([ 0,  1,  2,  4, 15])
    """
    products = accumulators.long() * multiplier
    odd = (products >> shift) & 1
    below_half = (torch.ones_like(shift) << (shift - 1)) - 1
    return products.add_(below_half).add_(odd).bitwise_right_shift_(shift).clamp_(qmin, qmax)
