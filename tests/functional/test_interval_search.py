"""The interval of least squared error, against a brute-force search."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, least_error_interval

KERNELS = ([LIQActivationKernel(bits)
            for bits in (2, 4, 8)] + [LIQWeightKernel(bits) for bits in (1, 2, 4, 8)])
SAMPLES = {
    'half_normal': lambda n: torch.randn(n).abs(),
    'uniform': lambda n: torch.rand(n),
    'with_outliers':
    lambda n: torch.cat([torch.rand(n - 2), torch.tensor([6.0, 9.0])]),
}
kernels = pytest.mark.parametrize(
    'kernel', KERNELS, ids=lambda k: f'{type(k).__name__[3:-6].lower()}{k.bit_width}')


def squared_error(kernel: object, row: Tensor, interval: Tensor) -> Tensor:
    """Error of one row with one interval."""
    return (kernel.forward(row, interval) - row).pow(2).sum()


def search(kernel: object, rows: Tensor) -> Tensor:
    """The interval of each row, as a quantizer asks for it."""
    return least_error_interval(rows, kernel.grid)


@kernels
@pytest.mark.parametrize('samples', SAMPLES.values(), ids=SAMPLES.keys())
def test_no_interval_of_a_fine_grid_is_much_better(kernel, samples) -> None:
    row = samples(300)
    if isinstance(kernel, LIQWeightKernel):
        row = row * torch.randn(300).sign()
    found = squared_error(kernel, row, search(kernel, row[None])[0])
    grid = torch.linspace(1e-3, 1, 1000) * row.abs().max()
    best = min(squared_error(kernel, row, interval) for interval in grid)
    assert found <= 1.02 * best


@pytest.mark.parametrize('bits', [1, 3, 8])
def test_rows_do_not_see_each_other(bits: int) -> None:
    kernel = LIQWeightKernel(bits)
    rows = torch.randn(4, 50) * torch.tensor([[0.01], [1.0], [30.0], [0.0]])
    together = search(kernel, rows)
    alone = torch.cat([search(kernel, row[None]) for row in rows])
    assert torch.equal(together, alone)


def test_interval_scales_with_its_row() -> None:
    row = torch.randn(1, 200)
    kernel = LIQWeightKernel(3)
    torch.testing.assert_close(search(kernel, 8 * row), 8 * search(kernel, row))


@kernels
def test_zeros_get_the_interval_one(kernel) -> None:
    assert search(kernel, torch.zeros(2, 9)).tolist() == [1, 1]


@kernels
def test_samples_that_are_levels_are_met_exactly(kernel) -> None:
    interval = torch.tensor(kernel.qmax / 8)
    points = kernel.forward(torch.linspace(-1, 1, 999) * interval, interval).unique()
    found = search(kernel, points[None])[0]
    assert squared_error(kernel, points, found) <= 1e-9 * points.pow(2).sum()
