"""LIQ written as a composition of torch operations, which autograd differentiates.

This is the readable form of :mod:`mmaqd.functional.liq`. Nothing trains with it: it saves several
tensors of the size of its input for the backward pass. Tests and benchmarks compare against it.
"""
from __future__ import annotations

from typing import Optional

from torch import Tensor

from .kernels import per_channel
from .liq import floor_interval
from .ranges import unsigned_qmax, weight_qmax
from .rounding import round_ste


def composed_liq_activation(x: Tensor, interval: Tensor, bit_width: int) -> Tensor:
    """LIQ of activations, arXiv:2007.06919: v round(n clip(x/v, 0, 1)) / n.

    Args:
        x: Any shape.
        interval: v, ().
        bit_width: b, 2 to 8; n = 2^b - 1.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    n = unsigned_qmax(bit_width)
    v = floor_interval(interval)
    return v * round_ste(n * (x / v).clamp(0, 1)) / n


def composed_liq_weight(w: Tensor,
                        interval: Tensor,
                        bit_width: int,
                        normalize: bool = False,
                        axis: Optional[int] = None) -> Tensor:
    """LIQ of weights, arXiv:2007.06919: v (2 round(n (clip(w/v, -1, 1) + 1)/2)/n - 1).

    Args:
        w: Any shape.
        interval: v, () or, with ``axis``, (C,).
        bit_width: b, 1 to 8; n = 2^b - 1. At 8 bits v round(127 clip(w/v, -1, 1)) / 127.
        normalize: Quantize (w - mean)/std, with constant mean and std.
        axis: The axis kept.

    Returns:
        The fake-quantized tensor, the shape of ``w``.
    """
    if normalize:
        w = (w - w.mean().detach()) / w.std(correction=0).detach()
    n = weight_qmax(bit_width)
    v = per_channel(floor_interval(interval), w, axis)
    clipped = (w / v).clamp(-1, 1)
    if bit_width == 8:
        return v * round_ste(n * clipped) / n
    return v * (2 * round_ste(n * (clipped + 1) / 2) / n - 1)
