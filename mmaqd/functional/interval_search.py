"""Search of the interval with the least squared quantization error."""
from __future__ import annotations

import torch
from torch import Tensor

from .grid import IntegerGrid

_CELLS = 64
_AT_ONCE = 2**20  # numbers of the largest temporary tensor
_SAMPLES_FOR_CODE = 8  # with fewer, rounding each is faster than finding the ends of each stretch


def least_error_interval(x: Tensor, grid: IntegerGrid) -> Tensor:
    """Interval of each row of ``x`` with the least squared error, on a grid refined once.

    An interval v has the grid points v q / qmax. The first search divides max|x| of the row in
    64; the second divides the two cells around the best interval again in 64, which fixes it to
    about a thousandth of max|x|.

    Args:
        x: (R, N) samples, one row for each interval.
        grid: The codes q.

    Returns:
        (R,) intervals; 1 for a row of zeros, where every interval is as good.

    Example:
        >>> least_error_interval(torch.tensor([[0., 0.25, 0.5, 0.75]]), IntegerGrid(0, 3))
        tensor([0.7500])
    """
    rows = (_SortedRows if x.shape[1] > _SAMPLES_FOR_CODE * grid.num_codes else _Rows)(x)
    largest = x.abs().amax(dim=1)
    fractions = torch.arange(1, _CELLS + 1, device=x.device, dtype=x.dtype) / _CELLS
    coarse = _best(rows, fractions * largest[:, None], grid)
    offsets = torch.linspace(-1, 1, _CELLS + 1, device=x.device, dtype=x.dtype) / _CELLS
    fine = (coarse + offsets * largest[:, None]).clamp_min(1e-3 * largest[:, None])
    best = _best(rows, torch.cat([coarse, fine], dim=1), grid)[:, 0]
    return torch.where(largest > 0, best, torch.ones_like(largest))


def _best(rows: _Rows, intervals: Tensor, grid: IntegerGrid) -> Tensor:
    """The interval of each row (R, K) with the least error, the first of equal ones: (R, 1)."""
    at_once = max(_AT_ONCE // rows.numbers_for_each(grid), 1)
    errors = torch.cat([rows.errors(some, grid) for some in intervals.split(at_once, dim=1)], dim=1)
    return intervals.gather(1, errors.argmin(dim=1, keepdim=True))


class _Rows:
    """Samples (R, N), each of which is rounded."""

    def __init__(self, x: Tensor) -> None:
        self._x = x[:, None]

    def numbers_for_each(self, grid: IntegerGrid) -> int:
        """Size of the temporary tensors for one interval of each row."""
        return self._x.numel()

    def errors(self, intervals: Tensor, grid: IntegerGrid) -> Tensor:
        """Squared error of each interval (R, K), up to what all of a row share: (R, K)."""
        step = (intervals * (grid.step / grid.qmax))[..., None]
        lowest = grid.qmin / grid.step
        codes = (self._x / step - lowest).round_().clamp_(0, grid.num_codes - 1).add_(lowest)
        return codes.mul_(step).sub_(self._x).square_().sum(dim=-1)


class _SortedRows(_Rows):
    """Samples in order, and their running sums: what gets one code is a stretch of them."""

    def __init__(self, x: Tensor) -> None:
        self._sorted = x.double().sort(dim=1).values
        zero = self._sorted.new_zeros(len(x), 1)
        self._sums = torch.cat([zero, self._sorted.cumsum(dim=1)], dim=1)

    def numbers_for_each(self, grid: IntegerGrid) -> int:
        return len(self._sorted) * grid.num_codes

    def errors(self, intervals: Tensor, grid: IntegerGrid) -> Tensor:
        codes = grid.values.to(self._sorted)
        points = intervals.double()[..., None] * (codes / grid.qmax)
        middles = (points[..., 1:] + points[..., :-1]) / 2
        ends = torch.searchsorted(self._sorted, middles.flatten(1))
        sums = self._sums.gather(1, ends).view_as(middles)
        ends = ends.view_as(middles)
        first, last = torch.zeros_like(points[..., :1]), torch.ones_like(points[..., :1])
        counts = torch.cat([first, ends, last * self._sorted.shape[1]], dim=-1).diff()
        totals = torch.cat([first, sums, last * self._sums[:, -1, None, None]], dim=-1).diff()
        return (points * (points * counts - 2 * totals)).sum(dim=-1)
