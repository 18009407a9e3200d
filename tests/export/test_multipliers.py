"""Integers and the float32 arithmetic of the engines requantize alike under the conditions."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaqd.export.multipliers import choose_multipliers, is_decided, is_exact
from tests.helpers.integer_reference import requantized

RANGES = [(0, 3), (0, 7), (0, 15), (0, 255), (-8, 7), (-128, 127)]


def in_onnxruntime(a: int, bias: int, m: int, k: int, qmin: int, qmax: int) -> int:
    """round_half_even(float32(a + bias) * float32(M / 2^k)), clipped."""
    product = np.float32(a + bias) * np.float32(np.ldexp(float(m), -k))
    return int(np.clip(np.rint(product), qmin, qmax))


def in_openvino(a: int, bias: int, m: int, k: int, qmin: int, qmax: int) -> int:
    """The bias is added in float32, behind the product."""
    scale = np.float32(np.ldexp(float(m), -k))
    return int(np.clip(np.rint(np.float32(a) * scale + np.float32(bias) * scale), qmin, qmax))


def decisive(m: int, k: int, bias: int, low: int, high: int, qmin: int, qmax: int) -> list[int]:
    """Sums of products next to a boundary between two codes, and the extremes."""
    found = {low, high, 0}
    for code in range(qmin - 1, qmax + 1):
        boundary = (2 * code + 1) * 2**(k - 1) // m - bias
        found.update(boundary + step for step in (-1, 0, 1))
    return [each for each in found if low <= each <= high]


@settings(deadline=None, max_examples=300)
@given(st.floats(-12, 3), st.integers(1, 2**26), st.floats(-400, 400), st.sampled_from(RANGES))
def test_engines_agree_with_integers_at_every_boundary(log_factor: float, bound: int, shift: float,
                                                       codes: tuple[int, int]) -> None:
    factor = 10**log_factor
    if bound * factor < 1 / 16:  # a constant
        return
    low, high = np.array([-bound]), np.array([bound])
    chosen, biases = choose_multipliers(np.array([factor]), low, high, np.array([shift]), *codes)
    bias = int(biases[0])
    if not is_exact(chosen.multiplier, chosen.shift, low, high, np.array([bias]), *codes)[0]:
        # Sums far beyond the codes, or beyond what float32 can count.
        assert bound * factor > 2**16 or bound + abs(bias) >= 2**24
        return
    m, k = int(chosen.multiplier[0]), int(chosen.shift[0])
    for a in decisive(m, k, bias, -bound, bound, *codes):
        expected = requantized(a + bias, m, k, *codes)
        assert in_onnxruntime(a, bias, m, k, *codes) == expected
        assert in_openvino(a, bias, m, k, *codes) == expected


@settings(deadline=None, max_examples=200)
@given(st.floats(-4.5, 0), st.integers(16, 2**21), st.sampled_from(RANGES))
def test_the_factor_is_close(log_factor: float, bound: int, codes: tuple[int, int]) -> None:
    factor = 10**log_factor
    chosen, _ = choose_multipliers(
        np.array([factor]), np.array([-bound]), np.array([bound]), np.array([0]), *codes)
    # Half a step of 2^-k, at the top of the codes; nothing where all is rounded to zero.
    error = abs(chosen.factor[0] - factor) * min(bound, max(map(abs, codes)) / factor)
    assert error <= 0.5 * max(map(abs, codes)) / max(factor * 2**16, 1) + 0.5
    assert chosen.multiplier[0] % 2 or chosen.shift[0] == 1


def test_a_huge_factor_clips_all_but_zero() -> None:
    chosen, _ = choose_multipliers(
        np.array([1e9]), np.array([-100]), np.array([100]), np.array([0]), 0, 15)
    m, k = int(chosen.multiplier[0]), int(chosen.shift[0])
    assert [requantized(a, m, k, 0, 15) for a in (-1, 0, 1)] == [0, 0, 15]


def test_a_tiny_factor_gives_zeros() -> None:
    chosen, _ = choose_multipliers(
        np.array([1e-13]), np.array([-2**26]), np.array([2**26]), np.array([0.0]), -8, 7)
    m, k = int(chosen.multiplier[0]), int(chosen.shift[0])
    assert {requantized(a, m, k, -8, 7) for a in (-2**26, 0, 2**26)} == {0}


def test_without_the_condition_engines_differ() -> None:
    # 255 * 2^20 is far beyond 2^24, so that a product next to a boundary is rounded onto it.
    m, k, codes = 1049, 20, (0, 255)
    sums = np.arange(255 * 1000)
    low, high, bias = np.array([0]), np.array([sums[-1]]), np.array([0])
    assert not is_exact(np.array([m]), np.array([k]), low, high, bias, *codes)[0]
    assert any(
        in_onnxruntime(a, 0, m, k, *codes) != requantized(int(a), m, k, *codes)
        for a in range(0, 255000))


def test_without_room_for_the_bias_openvino_differs() -> None:
    m, k, codes, bias = 1049, 20, (0, 15), -10**6
    low, high = np.array([0]), np.array([2 * 10**6])
    assert not is_exact(np.array([m]), np.array([k]), low, high, np.array([bias]), *codes)[0]
    sums = decisive(m, k, bias, 0, 2 * 10**6, *codes)
    near = range(min(sums), max(sums))
    assert any(
        in_openvino(a, bias, m, k, *codes) != requantized(a + bias, m, k, *codes) for a in near)
    assert all(
        in_onnxruntime(a, bias, m, k, *codes) == requantized(a + bias, m, k, *codes) for a in sums)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(-3.5, 0), st.floats(-400, 400), st.sampled_from([(0, 255), (-128, 127)]),
    st.integers(0, 2**31))
def test_what_is_decided_is_rounded_alike_although_products_are_inexact(
        log_factor: float, shift: float, codes: tuple[int, int], seed: int) -> None:
    """Multipliers of 20 bits, whose products float32 does not hold."""
    k = int(np.floor(20 - np.log2(10**log_factor)))
    m = int(np.round(np.ldexp(10**log_factor, k))) + seed % 64
    bias = int(np.round(np.ldexp(shift / m, k)))
    low, high = -2**22, 2**22
    ends = np.array([m]), np.array([k]), np.array([low]), np.array([high]), np.array([bias])
    for engine, bias_first in ((in_onnxruntime, True), (in_openvino, False)):
        if is_decided(*ends, *codes, bias_first)[0]:
            for a in decisive(m, k, bias, low, high, *codes):
                assert engine(a, bias, m, k, *codes) == requantized(a + bias, m, k, *codes)


def test_an_accumulator_next_to_a_boundary_is_not_decided() -> None:
    # 1/16, and a bit more: 8 of them are half a code, or 2^-24 of a code from it.
    for m, k, expected in ((2**16, 20, False), (2**23 + 1, 27, False), (2**23 + 999, 27, True)):
        ends = (np.array([each]) for each in (m, k, -2**20, 2**20, 0))
        assert is_decided(*ends, 0, 15)[0] == expected


def mistaken(factor: float, offset: float, sums: range, m: int, k: int, bias: int,
             codes: tuple[int, int]) -> int:
    """How many sums of products get another code than real numbers give."""
    real = np.clip(np.round(np.array(sums) * factor + offset), *codes)
    return sum(requantized(each + bias, m, k, *codes) != wanted for each, wanted in zip(sums, real))


@pytest.mark.parametrize('spread, codes, reach, most', [(8, (0, 15), 60, 0.2),
                                                        (42, (-128, 127), 60, 0.6)])
def test_few_sums_get_another_code_than_real_numbers_give(spread: int, codes: tuple[int, int],
                                                          reach: int, most: float) -> None:
    """A fraction of those that do with the multiplier and the bias next to the real ones."""
    random = np.random.default_rng(0)
    factor = random.uniform(0.3, 1, 60) * codes[1] / reach / spread
    offset = random.normal(0, 5, 60)
    ends = np.full(60, -2 * reach * spread), np.full(60, 2 * reach * spread)
    chosen, bias = choose_multipliers(factor, *ends, offset, *codes, spread=spread)
    k = np.floor(20 - np.log2(factor))
    sums = range(ends[0][0], ends[1][0] + 1, spread)
    ours, theirs = (
        sum(
            mistaken(*real, sums, *(int(each) for each in channel), codes)
            for real, channel in zip(zip(factor, offset), zip(*channels)))
        for channels in ((chosen.multiplier, chosen.shift, bias), (np.round(factor * 2**k), k,
                                                                   np.round(offset / factor))))
    assert theirs > 0 and ours <= most * theirs, (ours, theirs)


def half_up(a: int, m: int, k: int, qmin: int, qmax: int) -> int:
    return min(max((a * m + 2**(k - 1)) >> k, qmin), qmax)


@pytest.mark.parametrize('bits', range(2, 9))
def test_rounding_half_up_is_the_same_for_odd_multipliers_beyond_twice_the_codes(bits: int) -> None:
    codes, k = (0, 2**bits - 1), 24 - bits
    for m in (2 * codes[1] + 1, 2 * codes[1] + 333):
        ties = [odd * 2**(k - 1) for odd in range(-9, 10, 2)]
        for a in [*ties, *decisive(m, k, 0, -2**30, 2**30, *codes)]:
            assert half_up(a, m, k, *codes) == requantized(a, m, k, *codes)


@pytest.mark.parametrize(('m', 'k', 'a'), [(64, 20, 2**13), (5, 20, 2**19)])
def test_each_condition_of_rounding_half_up_is_needed(m: int, k: int, a: int) -> None:
    """An even M, and an odd one below twice the codes: a tie within the codes."""
    assert half_up(a, m, k, 0, 15) != requantized(a, m, k, 0, 15)
