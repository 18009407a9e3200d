"""The check of a bit width."""
from __future__ import annotations

import pytest

from mmaqd.functional import check_bit_width


@pytest.mark.parametrize(('bits', 'minimum'), [(1, 1), (2, 2), (5, 2), (8, 1), (8, 2)])
def test_a_good_bit_width_is_returned(bits: int, minimum: int) -> None:
    assert check_bit_width(bits, minimum, 'conv1') == bits


@pytest.mark.parametrize('bits', [0, 1, 9, -4, '4', True, 4.0, None], ids=repr)
def test_a_bad_bit_width_is_refused(bits: object) -> None:
    expected = rf'conv1: bit_width must be an integer from 2 to 8, but got {bits!r}'
    with pytest.raises(ValueError, match=expected):
        check_bit_width(bits, 2, 'conv1')


def test_one_bit_depends_on_the_minimum() -> None:
    assert check_bit_width(1, 1, 'conv1') == 1
    with pytest.raises(ValueError, match='from 2 to 8'):
        check_bit_width(1, 2, 'conv1')
