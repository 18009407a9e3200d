"""Broadcasting of per-channel parameters and the dtype that kernels compute in."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional.kernels import FakeQuantizeKernel, compute_dtype, dot, per_channel
from tests.functional.families import activations, weights

KERNELS = [case.kernel for case in (*activations(4).values(), *weights(4).values())]


@pytest.mark.parametrize('axis', [0, 1, 2, -1])
def test_per_channel_broadcasts_along_its_axis(axis: int) -> None:
    x = torch.ones(2, 3, 4)
    values = torch.arange(x.shape[axis]).float()
    scaled = x * per_channel(values, x, axis)
    for index, value in enumerate(values):
        assert torch.equal(scaled.select(axis, index), value * x.select(axis, index))


def test_per_tensor_values_are_left_alone() -> None:
    value = torch.tensor(3.0)
    assert per_channel(value, torch.ones(2, 3), None) is value


@pytest.mark.parametrize('axis', [0, 1, 2, -1])
def test_dot_keeps_its_axis(axis: int) -> None:
    x, y = torch.arange(24.0).view(2, 3, 4), torch.arange(24.0, 48.0).view(2, 3, 4)
    expected = torch.stack([part.sum() for part in (x * y).unbind(axis)])
    assert torch.equal(dot(x, y, axis), expected)


def test_dot_with_nothing_kept_is_the_sum() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert dot(x, x.T.contiguous().T) == (x * x).sum()


@pytest.mark.parametrize(('given', 'computed'), [
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
],
                         ids=str)
def test_half_precision_is_computed_in_float32(given: torch.dtype, computed: torch.dtype) -> None:
    assert compute_dtype(torch.ones(2, dtype=given)).dtype == computed


@pytest.mark.parametrize('kernel', KERNELS, ids=repr)
def test_what_normalizes_says_so(kernel: FakeQuantizeKernel) -> None:
    x = torch.rand(5, 7)
    assert torch.equal(kernel.normalized(x), x) is not kernel.normalizes
    # A mean that is subtracted is the same for x and x + 1.
    assert torch.allclose(
        kernel.normalized(x), kernel.normalized(x + 1), atol=1e-5) is kernel.shifts
