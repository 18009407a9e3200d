"""Dyadic factors M / 2^k with which integers and float32 kernels requantize to the same codes.

The integer rule is clip(round_half_even(a M / 2^k)), see :mod:`mmaqd.functional.requantize`. The
kernels of ONNX Runtime and OpenVINO compute clip(round_half_even(float32(a) * float32(M / 2^k))),
OpenVINO with the bias added behind the product. These are equal for every accumulator a if the
products that decide about a code are exact in float32, which holds integers up to 2^24:

- (largest code + |bias in codes|) 2^k <= 2^24, since larger products are clipped; or
- every product is below 2^24.

The most exact factor that meets one of them is taken.
"""
from __future__ import annotations

import numpy as np

from .graph import Requantization

MAX_SHIFT = 40
_EXACT = 2**24  # integers up to it are exact in float32


def choose_multipliers(factor: np.ndarray, low: np.ndarray, high: np.ndarray, offset: np.ndarray,
                       qmin: int, qmax: int) -> Requantization:
    """The dyadic factors nearest to real ones that requantize alike in integers and float32.

    A factor with which every accumulator but 0 is clipped becomes the smallest that does so; one
    with which all accumulators become 0 becomes 2^-40.

    Args:
        factor: Real factors, positive, (C,).
        low: Smallest sum of products of each channel, without the bias, (C,).
        high: Largest one, (C,).
        offset: What a bias will add, in codes, (C,); it is made integer by the factor chosen here.
        qmin: Smallest code of the output.
        qmax: Largest code of the output.
    """
    largest = max(qmax, -qmin)
    factor = np.minimum(factor.astype(np.float64), largest + 0.5)
    if largest > 255:  # no engine has such codes, so float32 does not matter
        return Requantization(*_reduced(*_near(factor, np.log2(_EXACT / 2 / factor))))
    products = largest_part(low, high, offset / factor)
    shifts = (
        np.log2(_EXACT / (largest + 1 + np.abs(offset))),  # what is larger is clipped
        np.log2((_EXACT - 1) / (products * factor)))  # nothing is larger
    candidates = [_near(factor, shift) for shift in (*shifts, np.full_like(factor, MAX_SHIFT))]
    errors = []
    for m, k in candidates:
        exact = is_exact(m, k, low, high, np.round(np.ldexp(offset / m, k)), qmin, qmax)
        errors.append(np.where(exact, np.abs(_value(m, k) - factor), np.inf))
    best = np.argmin(errors, axis=0)
    return Requantization(*_reduced(*(np.choose(best, each) for each in zip(*candidates))))


def largest_part(low: np.ndarray, high: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Largest size of the sum of products, the bias, and both together, at least 1."""
    parts = [low, high, bias, low + bias, high + bias, np.ones_like(low)]
    return np.abs(np.stack([np.broadcast_to(each, low.shape) for each in parts])).max(0)


def is_exact(multiplier: np.ndarray, shift: np.ndarray, low: np.ndarray, high: np.ndarray,
             bias: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    """Whether integers and float32 requantize all accumulators alike: bool (C,)."""
    shifted = np.abs(bias) * _value(multiplier, shift)
    decisive = np.ldexp(max(qmax, -qmin) + shifted, shift)
    products = largest_part(low, high, bias) * multiplier.astype(np.float64)
    vanish = np.ldexp(products, -shift) < 0.5
    return (multiplier < _EXACT) & ((decisive <= _EXACT) | (products < _EXACT) | vanish)


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
