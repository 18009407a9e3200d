"""A whole number that the weight codes of a layer are multiplied by, so that less is rounded.

The bias of a conv is rounded to units of its sums. Codes of 4 bits leave most of int8 unused: all
of them times c give sums c times as large, whose unit is so much finer, for the same price. On the
other hand M / 2^k is c times smaller, and where k is bounded it has fewer digits: see
:mod:`mmaqd.export.multipliers`.
"""
from __future__ import annotations

from typing import Iterator

import numpy as np

from .multipliers import choose_multipliers, mistaken_sums
from .storage import Format

_INT8 = 127
_INT16 = 2**15 - 1
_EXACT = 2**23


def choose_spread(weights: np.ndarray, inputs: int, magnitude: np.ndarray, factor: np.ndarray,
                  offset: np.ndarray, form: Format | None) -> int:
    """The number with which the fewest sums get another code than real numbers give.

    Args:
        weights: Weight codes, (C_out, C_in / groups, K_h, K_w).
        inputs: Largest difference of two input codes.
        magnitude: Largest size of each channel's sum of products, (C_out,).
        factor: What a channel's sums are worth, in codes of the output, (C_out,), or in any unit
            without such codes.
        offset: What is added to that, (C_out,).
        form: Codes of the output; None for real numbers.

    Returns:
        At least 1; the largest one that fits, or a power of two.

    Example:
        >>> weights = np.array([-3, 1]).reshape(1, 2, 1, 1)
        >>> one = np.ones(1)
        >>> choose_spread(weights, 3, 12 * one, 0.3 * one, one, Format(0, 3, 1.0))
        42
    """
    candidates = list(_fitting(weights, inputs, magnitude.max(initial=0)))
    if form is None:
        return candidates[-1]
    best, fewest = candidates[-1], np.inf
    for spread in reversed(candidates):
        mistaken = _mistaken(spread, magnitude, factor, offset, form)
        if mistaken < fewest:
            best, fewest = spread, mistaken
        if not mistaken:
            break
    return best


def _fitting(weights: np.ndarray, inputs: int, magnitude: int) -> Iterator[int]:
    """1 and what keeps weights in int8, pairs of products in int16 and sums exact in float32."""
    largest = int(np.abs(weights).max(initial=0))
    limit = 1
    if largest and magnitude:
        limit = int(
            min(_INT8 // largest, _INT16 // (2 * inputs * largest), (_EXACT - 1) // magnitude))
    spread = 1
    while spread < limit:
        yield spread
        spread *= 2
    yield max(limit, 1)


def _mistaken(spread: int, magnitude: np.ndarray, factor: np.ndarray, offset: np.ndarray,
              form: Format) -> float:
    """How many sums get another code than real numbers give."""
    ends = -spread * magnitude, spread * magnitude
    codes = form.qmin, form.qmax
    chosen, bias = choose_multipliers(factor / spread, *ends, offset, *codes, spread=spread)
    return float(mistaken_sums(chosen, bias, factor / spread, *ends, offset, *codes, spread).sum())
