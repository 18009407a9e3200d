"""The one rounding rule: half to even, straight-through backward."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import round_half_even, round_ste

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_ties_go_to_the_even_integer(dtype: torch.dtype) -> None:
    halves = torch.arange(-20, 20, dtype=dtype) + 0.5
    expected = torch.tensor([round(x) for x in halves.tolist()], dtype=dtype)
    rounded = round_half_even(halves)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, expected)


def test_other_numbers_go_to_the_nearest_integer() -> None:
    x = torch.tensor([-1.51, -1.49, -0.51, 0.49, 0.51, 1.0, 254.6], dtype=torch.float64)
    assert round_half_even(x).tolist() == [-2, -1, -1, 0, 1, 1, 255]


def test_ste_rounds_forward_and_passes_the_gradient() -> None:
    x = torch.tensor([-2.5, -0.3, 0.5, 1.5, 2.7], dtype=torch.float64, requires_grad=True)
    y = round_ste(x)
    assert torch.equal(y, round_half_even(x))
    (y * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [1, 2, 3, 4, 5]
