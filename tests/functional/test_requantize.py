"""Requantization against Python's integers and fractions."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaqd.functional.requantize import requantize
from tests.helpers.integer_reference import requantized

RANGES = [(0, 2**bits - 1) for bits in range(2, 9)] + [(-2**(bits - 1), 2**(bits - 1) - 1)
                                                       for bits in range(2, 9)]


def near_boundaries(multiplier: int, shift: int, qmin: int, qmax: int) -> list[int]:
    """Accumulators on both sides of every rounding boundary, those beyond the clips too."""
    found = set()
    for code in range(qmin - 2, qmax + 2):
        boundary = (2 * code + 1) * 2**(shift - 1) // multiplier
        found.update(boundary + step for step in (-2, -1, 0, 1, 2))
    return sorted(each for each in found if abs(each) < 2**31)


def check(accumulators: list[int], multiplier: int, shift: int, qmin: int, qmax: int) -> None:
    found = requantize(
        torch.tensor(accumulators), torch.tensor(multiplier), torch.tensor(shift), qmin, qmax)
    expected = [requantized(each, multiplier, shift, qmin, qmax) for each in accumulators]
    assert found.tolist() == expected


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 2**24 - 1), st.integers(1, 40), st.sampled_from(RANGES),
    st.lists(st.integers(-2**31 + 1, 2**31 - 1), min_size=1, max_size=20))
def test_it_equals_pythons_fractions(multiplier: int, shift: int, codes: tuple[int, int],
                                     accumulators: list[int]) -> None:
    check(accumulators, multiplier, shift, *codes)
    check([0, *near_boundaries(multiplier, shift, *codes)], multiplier, shift, *codes)


@pytest.mark.parametrize('codes', RANGES)
@pytest.mark.parametrize(('multiplier', 'shift'), [(1, 1), (2, 2), (3, 1), (12, 5), (1, 8)])
def test_ties_go_to_the_even_code(codes: tuple[int, int], multiplier: int, shift: int) -> None:
    check(list(range(-600, 600)), multiplier, shift, *codes)


def test_each_channel_has_its_own_factor() -> None:
    accumulators = torch.tensor([[10, 10], [-10, 10]]).view(1, 2, 1, 2)
    found = requantize(accumulators,
                       torch.tensor([1, 3]).view(1, 2, 1, 1),
                       torch.tensor([2, 1]).view(1, 2, 1, 1), -128, 127)
    assert found.flatten().tolist() == [2, 2, -15, 15]


def test_it_takes_narrow_integers_and_leaves_them_alone() -> None:
    accumulators = torch.tensor([100, -100], dtype=torch.int32)
    found = requantize(accumulators, torch.tensor(2**23), torch.tensor(23), -128, 127)
    assert found.tolist() == [100, -100] and found.dtype == torch.int64
    assert accumulators.tolist() == [100, -100]
