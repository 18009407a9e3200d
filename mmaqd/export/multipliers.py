"""Dyadic factors M / 2^k with which integers and float32 kernels requantize to the same codes.

The integer rule is clip(round_half_even(a M / 2^k)), see :mod:`mmaqd.functional.requantize`. The
kernels of ONNX Runtime and OpenVINO compute clip(round_half_even(float32(a) * float32(M / 2^k))),
OpenVINO with the bias added behind the product. These are equal for every accumulator a if

- the products that decide about a code are exact in float32, which holds integers up to 2^24:
  (largest code + |bias in codes|) 2^k <= 2^24, since larger products are clipped; or
- every product is below 2^24; or
- at each boundary h between two codes the two accumulators next to it are further from it than
  float32 can err. Then they are rounded alike, and so are all others, as a rounded product grows
  with a. A rounding errs by 2^-24 of its result: |h| 2^-24 if engines add the bias first, else
  there are three roundings, 2 (|h| + |bias in codes|) 2^-24.

The third one is checked for multipliers of up to 20 bits next to the real factor, the nearest
first; where none meets it, the most exact one that meets another is taken. Of the biases and
multipliers around it those are taken with which the fewest sums get another code than the real
numbers give.
"""
from __future__ import annotations

from itertools import product

import numpy as np

from .graph import Requantization

MAX_SHIFT = 40
_EXACT = 2**24  # integers up to it are exact in float32
_DIGITS = 20
# Multipliers to try on either side: the last one is off by 2^-4 of a code at the top of 8 bits.
_NEIGHBOURS = 256
_BLOCKS = (1, 5, 33, 129)  # tried together, so that what is found next to a factor ends the search
_AT_ONCE, _LEAST_BOUNDARIES = 2**12, 8
# Around the nearest: steps of the multiplier, and units of the bias.
_STEPS = (0, *(each * sign for each in (5, 15, 30, 50, 80, 120, 170, 240, 340, 480, 680)
               for sign in (1, -1)))
_BIASES = (0, 1, -1)


def choose_multipliers(factor: np.ndarray,
                       low: np.ndarray,
                       high: np.ndarray,
                       offset: np.ndarray,
                       qmin: int,
                       qmax: int,
                       bias_first: bool = False,
                       spread: int = 1) -> tuple[Requantization, np.ndarray]:
    """Dyadic factors next to real ones that requantize alike in integers and float32.

    They do so with the biases that belong to them.

    A factor with which every accumulator but 0 is clipped becomes the smallest that does so; one
    with which all accumulators become 0 becomes 2^-40.

    Args:
        factor: Real factors, positive, (C,).
        low: Smallest sum of products of each channel, without the bias, (C,).
        high: Largest one, (C,).
        offset: What the bias adds, in codes, (C,).
        qmin: Smallest code of the output.
        qmax: Largest code of the output.
        bias_first: Whether all engines add the bias before they multiply.
        spread: What all sums of products are multiples of.

    Returns:
        The factors, and ``offset`` in their units: the biases, integers as float64, (C,).
    """
    largest = max(qmax, -qmin)
    factor = np.minimum(factor.astype(np.float64), largest + 0.5)
    if largest > 255:  # no engine has such codes, so float32 does not matter
        m, k = _reduced(*_near(factor, np.log2(_EXACT / 2 / factor)))
        return Requantization(m, k), _bias(offset, m, k)
    products = largest_part(low, high, offset / factor)
    shifts = (
        np.log2(_EXACT / (largest + 1 + np.abs(offset))),  # what is larger is clipped
        np.log2((_EXACT - 1) / (products * factor)))  # nothing is larger
    candidates = [_near(factor, shift) for shift in (*shifts, np.full_like(factor, MAX_SHIFT))]
    errors = []
    for m, k in candidates:
        exact = is_exact(m, k, low, high, _bias(offset, m, k), qmin, qmax, bias_first)
        errors.append(np.where(exact, np.abs(_value(m, k) - factor), np.inf))
    best = np.argmin(errors, axis=0)
    multiplier, shift = (np.choose(best, each) for each in zip(*candidates))
    _refine(multiplier, shift, factor, low, high, offset, (qmin, qmax, bias_first))
    bias = _bias(offset, multiplier, shift)
    _settle(multiplier, shift, bias, factor, low, high, offset, spread, (qmin, qmax, bias_first))
    return Requantization(*_reduced(multiplier, shift)), bias


def mistaken_sums(chosen: Requantization, bias: np.ndarray, factor: np.ndarray, low: np.ndarray,
                  high: np.ndarray, offset: np.ndarray, qmin: int, qmax: int,
                  spread: int) -> np.ndarray:
    """How many sums of products get another code than real numbers give, times by how much.

    Args:
        chosen, bias: From :func:`choose_multipliers`; the others are what it was given.

    Returns:
        (C,), whole numbers as float64.
    """
    real = _first_sums(factor, offset, low, high, spread, qmin, qmax)
    return _mistaken(real, chosen.multiplier, chosen.shift, bias, low, high, spread, qmin, qmax)


def _bias(offset: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.round(np.ldexp(offset / multiplier, shift))


def _refine(multiplier: np.ndarray, shift: np.ndarray, factor: np.ndarray, low: np.ndarray,
            high: np.ndarray, offset: np.ndarray, how: tuple[int, int, bool]) -> None:
    """Replace factors by the nearest ones of many digits that are decided at every boundary."""
    first, k = _near(factor, _DIGITS - np.log2(factor))
    error = np.abs(_value(multiplier, shift) - factor)
    left = np.flatnonzero(error > np.ldexp(1.0, -k))
    steps = np.array(sorted(range(-_NEIGHBOURS, _NEIGHBOURS + 1), key=abs))
    for some in np.split(steps, _BLOCKS):
        m, at = np.maximum(first[left] + some[:, None], 1), k[left]
        bias = _bias(offset[left], m, at)
        found = is_decided(m, at, low[left], high[left], bias, *how)
        found &= np.abs(_value(m, at) - factor[left]) < error[left]
        nearest, any_found = found.argmax(0), found.any(0)
        multiplier[left[any_found]] = m[nearest, np.arange(len(left))][any_found]
        shift[left[any_found]] = at[any_found]
        left = left[~any_found]


def _settle(multiplier: np.ndarray, shift: np.ndarray, bias: np.ndarray, factor: np.ndarray,
            low: np.ndarray, high: np.ndarray, offset: np.ndarray, spread: int,
            how: tuple[int, int, bool]) -> None:
    """Replace multipliers and biases by those around them with which fewer sums are mistaken."""
    real = _first_sums(factor, offset, low, high, spread, *how[:2])
    mistaken = _mistaken(real, multiplier, shift, bias, low, high, spread, *how[:2])
    first, k = _near(factor, _DIGITS - np.log2(factor))
    for step, more in product((None, *_STEPS), _BIASES):
        left = np.flatnonzero(mistaken)
        if not len(left):
            return
        m, at = multiplier[left], shift[left]
        if step is not None:
            m, at = np.maximum(first[left] + step, 1), k[left]
        tried = _bias(offset[left], m, at) + more
        bounds = low[left], high[left]
        found = _mistaken(real[:, left], m, at, tried, *bounds, spread, *how[:2])
        better = found < mistaken[left]
        better[better] = is_exact(m[better], at[better], *(each[better] for each in bounds),
                                  tried[better], *how)
        for given, new in zip((multiplier, shift, bias, mistaken), (m, at, tried, found)):
            given[left[better]] = new[better]


def _mistaken(real: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, bias: np.ndarray,
              low: np.ndarray, high: np.ndarray, spread: int, qmin: int, qmax: int) -> np.ndarray:
    """As :func:`mistaken_sums`, from the first sums beyond the real boundaries."""
    value = _value(multiplier, shift)
    return np.abs(_first_sums(value, bias * value, low, high, spread, qmin, qmax) - real).sum(0)


def _first_sums(factor: np.ndarray, offset: np.ndarray, low: np.ndarray, high: np.ndarray,
                spread: int, qmin: int, qmax: int) -> np.ndarray:
    """The first sum beyond each boundary, in spreads, or the one that follows the last: (B, C)."""
    halves = np.arange(qmin, qmax)[:, None] + 0.5
    return np.clip(np.ceil((halves - offset) / (factor * spread)), low / spread, high / spread + 1)


def is_decided(multiplier: np.ndarray,
               shift: np.ndarray,
               low: np.ndarray,
               high: np.ndarray,
               bias: np.ndarray,
               qmin: int,
               qmax: int,
               bias_first: bool = False) -> np.ndarray:
    """Whether no accumulator is so near a boundary that float32 could round it otherwise.

    Args:
        multiplier, shift, low, high, bias: Arrays that broadcast to one shape.
        qmin, qmax, bias_first: As for :func:`choose_multipliers`.

    Returns:
        bool, of that shape.
    """
    arrays = np.broadcast_arrays(*(np.asarray(each, np.float64)
                                   for each in (multiplier, shift, low, high, bias)))
    decided = arrays[0] < _EXACT
    # The outermost boundaries first: errors are the largest there.
    halves = np.array(sorted(range(2 * qmin + 1, 2 * qmax, 2), key=abs, reverse=True), np.float64)
    while len(halves) and decided.any():
        left = np.nonzero(decided)
        some, halves = np.split(halves, [max(_AT_ONCE // len(left[0]), _LEAST_BOUNDARIES)])
        decided[left] = _decided_at(some[:, None], *(each[left] for each in arrays),
                                    bias_first).all(0)
    return decided


def _decided_at(halves: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, low: np.ndarray,
                high: np.ndarray, bias: np.ndarray, bias_first: bool) -> np.ndarray:
    """Whether this holds at boundaries, halves / 2, of each candidate; all integers below 2^53."""
    boundary = np.ldexp(halves, shift.astype(np.int64) - 1)
    below = np.floor(boundary / multiplier)
    rest = boundary - below * multiplier
    below += np.where(rest < 0, -1, rest >= multiplier)  # where the quotient was rounded up or down
    value = np.ldexp(1.0, -shift.astype(np.int64))
    far = np.minimum(np.abs(rest), np.abs(multiplier - rest)) * value
    error = np.abs(halves) / 2 + 1
    if not bias_first:
        error = 2 * (error + np.abs(bias) * multiplier * value)
    counted = np.abs(below) + np.abs(bias) + 1 < _EXACT
    reached = (below + 1 >= low + bias) & (below <= high + bias)
    return (far > error / _EXACT) & counted | ~reached


def largest_part(low: np.ndarray, high: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Largest size of the sum of products, the bias, and both together, at least 1."""
    parts = [low, high, bias, low + bias, high + bias, np.ones_like(low)]
    return np.abs(np.stack([np.broadcast_to(each, low.shape) for each in parts])).max(0)


def is_exact(multiplier: np.ndarray,
             shift: np.ndarray,
             low: np.ndarray,
             high: np.ndarray,
             bias: np.ndarray,
             qmin: int,
             qmax: int,
             bias_first: bool = False) -> np.ndarray:
    """Whether integers and float32 requantize all accumulators alike: bool (C,)."""
    shifted = np.abs(bias) * _value(multiplier, shift)
    decisive = np.ldexp(max(qmax, -qmin) + shifted, shift)
    products = largest_part(low, high, bias) * multiplier.astype(np.float64)
    vanish = np.ldexp(products, -shift) < 0.5
    decided = is_decided(multiplier, shift, low, high, bias, qmin, qmax, bias_first)
    return (multiplier < _EXACT) & ((decisive <= _EXACT) | (products < _EXACT) | vanish) | decided


def _near(factor: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M and k nearest to a factor for a largest k."""
    k = np.clip(np.floor(shift), 1, MAX_SHIFT).astype(np.int64)
    return np.maximum(np.round(np.ldexp(factor, k)), 1).astype(np.int64), k


def _value(multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.ldexp(multiplier.astype(np.float64), -shift)


def _reduced(multiplier: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same factors with odd M, as far as k stays at least 1."""
    multiplier, shift = multiplier.copy(), shift.copy()
    for _ in range(MAX_SHIFT):
        even = (multiplier % 2 == 0) & (shift > 1)
        multiplier[even] //= 2
        shift[even] -= 1
    return multiplier, shift
