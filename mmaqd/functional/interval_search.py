"""Search of the interval with the least squared quantization error."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

_GRID = 64


def least_error_interval(x: Tensor, fake_quantize_rows: Callable[[Tensor, Tensor],
                                                                 Tensor]) -> Tensor:
    """Interval of each row of ``x`` with the least squared error, on a grid refined once.

    The first grid divides max|x| of the row in 64; the second divides the two cells around the
    best point again in 64, which fixes the interval to about a thousandth of max|x|.

    Args:
        x: (R, N) samples, one row for each interval.
        fake_quantize_rows: Maps ``x`` and intervals (R,) to the fake-quantized (R, N).

    Returns:
        (R,) intervals; 1 for a row of zeros, where every interval is as good.
    """
    largest = x.abs().amax(dim=1)
    fractions = torch.arange(1, _GRID + 1, device=x.device, dtype=x.dtype) / _GRID
    coarse = _best(x, largest, fractions, fake_quantize_rows)
    best = coarse
    for offset in torch.linspace(-1, 1, _GRID + 1, device=x.device, dtype=x.dtype):
        candidate = (coarse[0] + offset * largest / _GRID).clamp_min(1e-3 * largest)
        best = _better(x, candidate, best, fake_quantize_rows)
    return torch.where(largest > 0, best[0], torch.ones_like(largest))


def _best(x: Tensor, largest: Tensor, fractions: Tensor,
          fake_quantize_rows: Callable) -> tuple[Tensor, Tensor]:
    best = (largest, torch.full_like(largest, float('inf')))
    for fraction in fractions:
        best = _better(x, fraction * largest, best, fake_quantize_rows)
    return best


def _better(x: Tensor, interval: Tensor, best: tuple[Tensor, Tensor],
            fake_quantize_rows: Callable) -> tuple[Tensor, Tensor]:
    error = (fake_quantize_rows(x, interval) - x).square_().sum(dim=1)
    smaller = error < best[1]
    return torch.where(smaller, interval, best[0]), torch.where(smaller, error, best[1])
