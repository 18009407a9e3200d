"""Grid points are kept bit for bit, with the codes that they had, on every grid at every scale."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import (StoredWeightKernel, fake_quantize, narrow_grid, symmetric_weight_grid,
                              twos_complement_grid, unsigned_grid)
from mmaqd.functional.operators import kernel_from_text, kernel_to_text

GRIDS = [
    make(bits) for make in (unsigned_grid, symmetric_weight_grid, narrow_grid, twos_complement_grid)
    for bits in range(2, 9)
]


def kernel_of(grid, axis=None) -> StoredWeightKernel:
    return StoredWeightKernel((grid.qmin, grid.qmax, grid.step), axis)


@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_every_code_at_many_scales(grid):
    kernel = kernel_of(grid)
    assert kernel.grid == grid and kernel.bit_width == grid.bit_width
    scales = torch.cat([torch.rand(200) * 10.0**power for power in range(-9, 4)]).add_(1e-9)
    codes = grid.values.float()
    for scale in scales:
        points = codes * scale
        assert torch.equal(kernel.codes(points, scale), codes)
        assert torch.equal(kernel.forward(points, scale), points)


@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_a_scale_for_each_channel(grid):
    kernel, scale = kernel_of(grid, axis=0), torch.rand(5) + 0.01
    codes = grid.values.float().expand(5, -1).reshape(5, -1, 1, 1)
    points = codes * scale.view(5, 1, 1, 1)
    assert torch.equal(kernel.codes(points, scale), codes)
    assert torch.equal(kernel.forward(points, scale), points)


def test_what_is_no_grid_point_goes_to_the_nearest_one():
    kernel = StoredWeightKernel((-3, 3, 2))
    found = kernel.forward(torch.tensor([-9., -2.1, -1.9, 0.4, 9.]), torch.tensor(1.))
    assert found.tolist() == [-3, -3, -1, 1, 3]


@pytest.mark.parametrize('axis', [None, 0])
def test_gradients_pass(axis):
    scale = torch.ones(2 if axis == 0 else (), requires_grad=True)
    w = torch.tensor([[1., -1.], [3., 1.]], requires_grad=True)
    fake_quantize(w, StoredWeightKernel((-3, 3, 2), axis), scale).mul(2).sum().backward()
    assert w.grad.tolist() == [[2, 2], [2, 2]]
    assert scale.grad.shape == scale.shape and not scale.grad.any()


def test_as_text():
    kernel = StoredWeightKernel((-15, 15, 2), 0)
    assert kernel_from_text(kernel_to_text(kernel)) == kernel
