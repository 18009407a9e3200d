"""The one rounding rule of the package. The fake-quantized and the integer path both call it."""
from __future__ import annotations

import torch
from torch import Tensor


def round_half_even(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Round to the nearest integer, ties to the even one. The result keeps the dtype of ``x``.

    Args:
        x: Any shape.
        out: Where the result is written, e.g. ``x`` itself; None for a new tensor.

    Example:
        >>> round_half_even(torch.tensor([0.5, 1.5, 2.5, -0.5]))
        tensor([0., 2., 2., -0.])
    """
    return torch.round(x, out=out)


def round_ste(x: Tensor) -> Tensor:
    """:func:`round_half_even` forward, identity backward (straight-through estimator)."""
    return x + (round_half_even(x) - x).detach()
