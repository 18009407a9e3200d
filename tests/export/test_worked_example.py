"""The numbers of docs/integer.md."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from mmaqd.export.multipliers import choose_multipliers
from tests.helpers.integer_reference import requantized

PAGE = (Path(__file__).parents[2] / 'docs' / 'integer.md').read_text()


def chosen(factor: float, low: int, high: int, offset: float, qmin: int,
           qmax: int) -> tuple[int, int]:
    arrays = (np.array([each]) for each in (factor, low, high, offset))
    result, _ = choose_multipliers(*arrays, qmin, qmax)
    return int(result.multiplier[0]), int(result.shift[0])


def test_the_page_has_the_numbers_that_are_computed() -> None:
    codes, weights = np.array([1, 3, 2]), np.array([-3, 1, 3])
    a = int(codes @ weights) + round(-0.3 * 1.6 / 0.24)
    assert a == 4
    m, k = chosen(0.72, -9, 12, -1.44, 0, 3)
    assert f'M = {m}, k = {k}' in PAGE and requantized(a, m, k, 0, 3) == 3
    m, k = chosen(12.0, -9, 12, -24.0, -128, 127)
    assert f'M = {m}, k = {k}' in PAGE and requantized(a, m, k, -128, 127) == 48
    m, k = chosen(0.02, 0, 255, 0.0, 0, 3)
    assert f'M = {m}, k = {k}' in PAGE and requantized(118, m, k, 0, 3) == 2
