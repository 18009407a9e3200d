"""Means, deviations and paired differences against figures worked out by hand."""
from __future__ import annotations

import math

import pytest
from study_statistics import Summary, compare, summarize


def test_summary_of_three_seeds():
    summary = summarize({2: 4.0, 0: 1.0, 1: 1.0})
    assert summary == Summary(2.0, pytest.approx(math.sqrt((1 + 1 + 4) / 2)), (0, 1, 2))


def test_one_seed_has_no_deviation():
    assert summarize({5: 41.5}) == Summary(41.5, None, (5, ))


def test_no_seed_has_no_summary():
    assert summarize({}) is None


def test_difference_is_paired_by_seed():
    difference = compare({0: 1.0, 1: 2.0, 2: 4.0}, {2: 2.5, 1: 1.0, 0: 0.5})
    assert difference.mean == pytest.approx(1)  # 0.5, 1, 1.5, of deviation 0.5
    assert difference.seeds == (0, 1, 2)
    t = 1 / (0.5 / math.sqrt(3))
    # Student's t with two degrees of freedom has the two-sided p of 1 - t / sqrt(2 + t^2).
    assert difference.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_only_seeds_that_both_have_count():
    difference = compare({0: 3.0, 1: 5.0, 7: 100.0}, {1: 4.0, 0: 1.0, 3: -100.0})
    assert difference.mean == pytest.approx(1.5)
    assert difference.seeds == (0, 1)
    # One degree of freedom: t = 1.5 / (sqrt(0.5) / sqrt(2)) = 3, and p = 1 - 2 arctan(t) / pi.
    assert difference.p == pytest.approx(1 - 2 * math.atan(3) / math.pi)


def test_one_common_seed_has_a_difference_without_p():
    difference = compare({0: 3.0, 1: 5.0}, {1: 4.0})
    assert (difference.mean, difference.p, difference.seeds) == (1.0, None, (1, ))


def test_equal_differences_have_no_p():
    assert compare({0: 40.1, 1: 41.1}, {0: 40.0, 1: 41.0}).p is None


def test_nothing_in_common():
    assert compare({0: 1.0}, {1: 1.0}) is None
