"""Packing against Python's integers: every width, every ragged length, every index everywhere."""
from __future__ import annotations

import random

import pytest
import torch

from mmaqd.functional import pack, packed_size, unpack

WIDTHS = range(1, 9)


def packed_by_hand(indices: list[int], bits: int) -> list[int]:
    word = sum(index << (place * bits) for place, index in enumerate(indices))
    return list(word.to_bytes((len(indices) * bits + 7) // 8, 'little'))


@pytest.mark.parametrize('bits', WIDTHS)
def test_every_length(bits):
    draw = random.Random(bits)
    for length in range(70):
        indices = [draw.randrange(2**bits) for _ in range(length)]
        content = pack(torch.tensor(indices, dtype=torch.uint8), bits)
        assert content.dtype == torch.uint8
        assert content.tolist() == packed_by_hand(indices, bits)
        assert len(content) == packed_size(length, bits)
        assert unpack(content, bits, length).tolist() == indices


@pytest.mark.parametrize('bits', WIDTHS)
def test_every_index_at_every_place(bits):
    for place in range(17):
        for index in range(2**bits):
            indices = [0] * 17
            indices[place] = index
            content = pack(torch.tensor(indices), bits)
            assert content.tolist() == packed_by_hand(indices, bits)
            assert unpack(content, bits, 17).tolist() == indices


@pytest.mark.parametrize('bits', WIDTHS)
def test_the_largest_everywhere(bits):
    indices = torch.full((3, 5, 7), 2**bits - 1, dtype=torch.uint8)
    assert torch.equal(unpack(pack(indices, bits), bits, 105).view(3, 5, 7), indices)


@pytest.mark.parametrize('bits', [0, 9, 2.0, True])
def test_widths_that_are_none(bits):
    with pytest.raises(ValueError, match='pack: bit_width must be an integer from 1 to 8'):
        pack(torch.zeros(3), bits)
    with pytest.raises(ValueError, match='unpack: bit_width'):
        unpack(torch.zeros(3, dtype=torch.uint8), bits, 3)


@pytest.mark.parametrize('index', [-1, 8])
def test_an_index_that_does_not_fit(index):
    with pytest.raises(ValueError, match='3 bits hold the indices 0 to 7'):
        pack(torch.tensor([0, index]), 3)


@pytest.mark.parametrize('content', [
    torch.zeros(2, dtype=torch.uint8),
    torch.zeros(4, dtype=torch.uint8),
    torch.zeros(3, 1, dtype=torch.uint8),
    torch.zeros(3, dtype=torch.int8),
])
def test_bytes_that_are_not_so_many(content):
    with pytest.raises(ValueError, match='7 indices of 3 bits are 3 bytes'):
        unpack(content, 3, 7)


def test_bits_behind_the_last_index():
    for bit in range(21, 24):
        content = torch.tensor([0, 0, 1 << (bit - 16)], dtype=torch.uint8)
        with pytest.raises(ValueError, match='behind the last index'):
            unpack(content, 3, 7)
