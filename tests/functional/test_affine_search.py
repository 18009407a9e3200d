"""The step size and offset of least squared error, against a brute-force search."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaqd.functional import (LIQActivationKernel, least_error_interval,
                              least_error_step_size_and_offset)

SAMPLES = {
    'half_normal': lambda: torch.randn(300).abs(),
    'normal': lambda: torch.randn(300),
    'rectified': lambda: torch.randn(300).relu(),
    'far_from_zero': lambda: 7 + torch.rand(300),
    'swish': lambda: torch.nn.functional.silu(3 * torch.randn(300)),
}
samples = pytest.mark.parametrize('make', SAMPLES.values(), ids=SAMPLES.keys())


def squared_error(x: Tensor, qmax: int, step_size: Tensor, offset: Tensor) -> Tensor:
    codes = ((x - offset) / step_size).round().clamp(0, qmax)
    return (codes * step_size + offset - x).pow(2).sum()


@samples
@pytest.mark.parametrize('bits', [2, 3, 4])
def test_no_pair_of_a_grid_is_much_better(make, bits: int) -> None:
    x, qmax = make(), 2**bits - 1
    found = squared_error(x, qmax, *least_error_step_size_and_offset(x, qmax))
    length = x.max() - x.min()
    best = min(
        squared_error(x, qmax, share * length / qmax,
                      x.min() + place * length) for share in torch.linspace(0.02, 1.1, 60)
        for place in torch.linspace(-0.3, 0.9, 60))
    assert found <= 1.1 * best


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_never_worse_than_without_an_offset(bits: int) -> None:
    x, qmax = torch.randn(500).abs(), 2**bits - 1
    interval, = least_error_interval(x[None], LIQActivationKernel(bits).grid)
    without = squared_error(x, qmax, interval / qmax, torch.zeros(()))
    assert squared_error(x, qmax, *least_error_step_size_and_offset(x, qmax)) <= 1.0001 * without


@pytest.mark.parametrize('offset', [0.0, -1.5, 4.0])
def test_samples_that_are_levels_are_met_exactly(offset: float) -> None:
    x = offset + 0.25 * torch.arange(8.0)
    found = least_error_step_size_and_offset(x, 7)
    torch.testing.assert_close(torch.stack(found), torch.tensor([0.25, offset]))


@pytest.mark.parametrize('value', [0.0, 3.0, -2.0])
def test_equal_samples_are_met_by_finite_parameters(value: float) -> None:
    x = torch.full((9, ), value)
    step_size, offset = least_error_step_size_and_offset(x, 15)
    assert step_size > 0 and step_size.isfinite()
    torch.testing.assert_close(squared_error(x, 15, step_size, offset), torch.zeros(()))


def test_zeros_get_the_length_one() -> None:
    step_size, offset = least_error_step_size_and_offset(torch.zeros(4), 15)
    assert (step_size.item(), offset.item()) == (pytest.approx(1 / 15), 0)
