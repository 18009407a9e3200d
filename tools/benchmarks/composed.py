"""The quantizations written as compositions of torch operations, which autograd differentiates.

This is the readable form of :mod:`mmaqd.functional.liq`, ``lsq``, ``pact`` and ``dorefa``. The
tests hold them against it, and training_cost.py measures it. It saves several tensors of the size
of its input for the backward pass.
"""
from __future__ import annotations

import torch
from torch import Tensor

from mmaqd.functional.grid import symmetric_weight_grid, unsigned_grid
from mmaqd.functional.kernels import per_channel
from mmaqd.functional.liq import features_of_a_sample, floor_interval, lsq_gradient_factor
from mmaqd.functional.rounding import round_ste


def composed_liq_activation(x: Tensor, interval: Tensor, bit_width: int) -> Tensor:
    """LIQ of activations, arXiv:2007.06919: v round(n clip(x/v, 0, 1)) / n.

    Args:
        x: Any shape.
        interval: v, ().
        bit_width: b, 2 to 8; n = 2^b - 1.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    n = unsigned_grid(bit_width).qmax
    v = floor_interval(interval)
    return v * round_ste(n * (x / v).clamp(0, 1)) / n


def composed_liq_weight(w: Tensor,
                        interval: Tensor,
                        bit_width: int,
                        normalize: bool = False,
                        axis: int | None = None,
                        center: bool = True) -> Tensor:
    """LIQ of weights, arXiv:2007.06919: v (2 round(n (clip(w/v, -1, 1) + 1)/2)/n - 1).

    Args:
        w: Any shape.
        interval: v, () or, with ``axis``, (C,).
        bit_width: b, 1 to 8; n = 2^b - 1. At 8 bits v round(127 clip(w/v, -1, 1)) / 127.
        normalize: Quantize (w - mean)/std, with constant mean and std.
        axis: The axis kept.
        center: False: quantize w/std instead.

    Returns:
        The fake-quantized tensor, the shape of ``w``.
    """
    if normalize:
        mean, std = w.mean().detach(), w.std(correction=0).detach()
        w = (w - mean) / std if center else w / std
    v = per_channel(floor_interval(interval), w, axis)
    return v * _round_symmetric((w / v).clamp(-1, 1), bit_width)


def composed_lsq_activation(x: Tensor, step_size: Tensor, bit_width: int) -> Tensor:
    """LSQ of activations, arXiv:1902.08153: s round(clip(x/s, 0, n)).

    Args:
        x: (B, ...); 1/sqrt(N n), N the number of features of a sample, is the factor of the
            gradient of s.
        step_size: s, ().
        bit_width: b, 2 to 8; n = 2^b - 1.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    n = unsigned_grid(bit_width).qmax
    factor = lsq_gradient_factor(features_of_a_sample(x), n)
    s = _scale_gradient(floor_interval(step_size), factor)
    return s * round_ste((x / s).clamp(0, n))


def composed_lsq_weight(w: Tensor,
                        step_size: Tensor,
                        bit_width: int,
                        axis: int | None = None) -> Tensor:
    """LSQ of weights, arXiv:1902.08153: s round(clip(w/s, -n - 1, n)).

    Args:
        w: Any shape; 1/sqrt(N n), N the number of weights that share an s, is the factor of the
            gradient of s.
        step_size: s, () or, with ``axis``, (C,).
        bit_width: b, 2 to 8; n = 2^(b-1) - 1.
        axis: The axis kept.

    Returns:
        The fake-quantized tensor, the shape of ``w``.
    """
    n = 2**(bit_width - 1) - 1
    factor = lsq_gradient_factor(w.numel() // step_size.numel(), n)
    s = per_channel(_scale_gradient(floor_interval(step_size), factor), w, axis)
    return s * round_ste((w / s).clamp(-n - 1, n))


def composed_lsq_plus_activation(x: Tensor, step_size: Tensor, offset: Tensor,
                                 bit_width: int) -> Tensor:
    """LSQ+ of activations, arXiv:2004.09576: s round(clip((x - beta)/s, 0, n)) + beta.

    Args:
        x: (B, ...), of either sign.
        step_size: s, (); its gradient has the factor of :func:`composed_lsq_activation`.
        offset: beta, (); its gradient too.
        bit_width: b, 2 to 8; n = 2^b - 1.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    factor = lsq_gradient_factor(features_of_a_sample(x), unsigned_grid(bit_width).qmax)
    s = _scale_gradient(floor_interval(step_size), factor)
    beta = _scale_gradient(offset, factor)
    return s * round_ste(((x - beta) / s).clamp(0, unsigned_grid(bit_width).qmax)) + beta


def composed_pact_activation(x: Tensor, alpha: Tensor, bit_width: int) -> Tensor:
    """PACT, arXiv:1805.06085: y = clip(x, 0, alpha), rounded to alpha round(n y/alpha) / n.

    Args:
        x: Any shape.
        alpha: (). Rounding passes the gradient of the output on to y as it is.
        bit_width: b, 2 to 8; n = 2^b - 1.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    n = unsigned_grid(bit_width).qmax
    alpha = floor_interval(alpha)
    clipped = torch.where(x < alpha, x.clamp(min=0), alpha)
    quantized = alpha * torch.round(n * clipped / alpha) / n
    return clipped + (quantized - clipped).detach()


def composed_dorefa_activation(x: Tensor, bit_width: int, clip: float = 1.0) -> Tensor:
    """DoReFa of activations, arXiv:1606.06160: c round(n clip(x, 0, c)/c) / n.

    Args:
        x: Any shape.
        bit_width: b, 2 to 8; n = 2^b - 1.
        clip: c; 1 in the paper.

    Returns:
        The fake-quantized tensor, the shape of ``x``.
    """
    n = unsigned_grid(bit_width).qmax
    return clip * round_ste(n * (x.clamp(0, clip) / clip)) / n


def composed_dorefa_weight(w: Tensor, bit_width: int) -> Tensor:
    """DoReFa of weights, arXiv:1606.06160: 2 round(n (t + 1)/2)/n - 1, t = tanh(w)/max|tanh(w)|.

    Args:
        w: Any shape.
        bit_width: b, 2 to 8; n = 2^b - 1. At 8 bits round(127 t) / 127.

    Returns:
        The fake-quantized tensor, the shape of ``w``.
    """
    bounded = torch.tanh(w)
    return _round_symmetric(bounded / floor_interval(bounded.abs().amax()), bit_width)


def _round_symmetric(x: Tensor, bit_width: int) -> Tensor:
    """Round ``x`` in [-1, 1] to the codes of weights over the largest code."""
    n = symmetric_weight_grid(bit_width).qmax
    if bit_width == 8:
        return round_ste(n * x) / n
    return 2 * round_ste(n * (x + 1) / 2) / n - 1


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, with ``factor`` times its gradient."""
    scaled = factor * x
    return x.detach() + (scaled - scaled.detach())
