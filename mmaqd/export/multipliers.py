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


def choose_multipliers(factor: np.ndarray, low: np.ndarray, high: np.ndarray, bias: np.ndarray,
                       qmin: int, qmax: int) -> Requantization:
    """The dyadic factors nearest to real ones that requantize alike in integers and float32.

    A factor with which every accumulator but 0 is clipped becomes the smallest that does so; one
    with which all accumulators become 0 becomes 2^-40.

    Args:
        factor: Real factors, positive, (C,).
        low: Smallest sum of products of each channel, without the bias, (C,).
        high: Largest one, (C,).
        bias: Integer bias of each channel, (C,).
        qmin: Smallest code of the output.
        qmax: Largest code of the output.
    """
    largest = max(qmax, -qmin)
    factor = np.minimum(factor.astype(np.float64), largest + 0.5)
    products = largest_part(low, high, bias)
    shifts = (
        np.log2(_EXACT / (largest + np.abs(bias) * factor)),  # what is larger is clipped
        np.log2((_EXACT - 1) / (products * factor)))  # nothing is larger
    candidates = [_near(factor, shift, products) for shift in shifts]
    errors = [np.abs(_value(*each) - factor) for each in candidates]
    first = (errors[0] <= errors[1]) & (shifts[0] >= 1)
    chosen = (np.where(first, *pair) for pair in zip(*candidates))
    return Requantization(*_reduced(*chosen))


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


def _near(factor: np.ndarray, shift: np.ndarray,
          products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M and k nearest to a factor for a largest k."""
    k = np.clip(np.floor(shift), 1, MAX_SHIFT).astype(np.int64)
    m = np.maximum(np.round(np.ldexp(factor, k)), 1).astype(np.int64)
    vanishes = products * factor < 0.25
    return np.where(vanishes, 1, m), np.where(vanishes, MAX_SHIFT, k)


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
