"""LIQ from its formulas, twice: scalars in exact fractions, and plain autograd operations.

Independent of the package on purpose: nothing of mmaqd is imported here.
"""
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Callable, Iterable

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Point:
    """What the formulas say at one number: code, Q, dQ/dx and dQ/dv."""

    code: int
    value: Fraction
    d_x: int
    d_v: Fraction


def largest_code(bits: int) -> int:
    """n of the formulas; 127 for weights of 8 bits, see :func:`weight_point`."""
    return 2**bits - 1


def activation_point(x: float, v: float, bits: int) -> Point:
    """Q(x) = v q/n with q = round(n clip(x/v, 0, 1))."""
    x, v, n = Fraction(x), Fraction(v), largest_code(bits)
    if x < 0:
        return Point(0, Fraction(0), 0, Fraction(0))
    if x > v:
        return Point(n, v, 0, Fraction(1))
    code = round(n * x / v)  # half to even
    return Point(code, v * code / n, 1, Fraction(code, n) - x / v)


def weight_point(w: float, v: float, bits: int) -> Point:
    """Q(w) = v k/n; k = 2 round(n (w/v + 1)/2) - n, or round(127 w/v) at 8 bits."""
    w, v = Fraction(w), Fraction(v)
    n = 127 if bits == 8 else largest_code(bits)
    if abs(w) > v:
        sign = 1 if w > 0 else -1
        return Point(sign * n, sign * v, 0, Fraction(sign))
    code = round(n * w / v) if bits == 8 else 2 * round(n * (w / v + 1) / 2) - n
    value = v * code / n
    return Point(code, value, 1, (value - w) / v)


def tabulate(point: Callable[[float, float, int], Point], xs: Iterable[float], v: float,
             bits: int) -> dict[str, Tensor]:
    """The points of ``xs`` as float64 tensors (N,) named ``code``, ``value``, ``d_x``, ``d_v``."""
    points = [point(x, v, bits) for x in xs]
    return {
        name: torch.tensor([float(getattr(p, name)) for p in points], dtype=torch.float64)
        for name in ('code', 'value', 'd_x', 'd_v')
    }


#: Of LIQ's weights.
every_normalization = pytest.mark.parametrize(('normalize', 'center'), [(False, True), (True, True),
                                                                        (True, False)],
                                              ids=['plain', 'normalized', 'scaled'])


def straight_through_round(x: Tensor) -> Tensor:
    """round(x) forward, identity backward."""
    return x + (torch.round(x) - x).detach()


def composed_activation(x: Tensor, v: Tensor, bits: int) -> Tensor:
    """The activation formula in operations that autograd differentiates."""
    n = largest_code(bits)
    clipped = torch.clamp(x / v, 0, 1)
    return v * straight_through_round(n * clipped) / n


def composed_weight(w: Tensor,
                    v: Tensor,
                    bits: int,
                    normalize: bool = False,
                    center: bool = True) -> Tensor:
    """The weight formula in operations that autograd differentiates.

    Args:
        w: (C_out, ...).
        v: () or (C_out,).
        bits: Bit width.
        normalize: First (w - mean)/std, both constants in the backward pass.
        center: False: w/std instead.
    """
    if normalize:
        mean = w.detach().mean()
        std = (w.detach() - mean).pow(2).mean().sqrt()
        w = (w - mean * center) / std
    if v.dim():
        v = v.reshape(-1, *[1] * (w.dim() - 1))
    clipped = torch.clamp(w / v, -1, 1)
    if bits == 8:
        return v * straight_through_round(127 * clipped) / 127
    n = largest_code(bits)
    return v * (2 * straight_through_round(n * (clipped + 1) / 2) / n - 1)
