"""Integers of a few bits, packed without gaps.

The stream is little-endian, in the bytes and in the bits of a byte: index i takes the bits
``i * bit_width`` and following, and bit k of the stream is bit ``k % 8`` of byte ``k // 8``. So
eight indices take ``bit_width`` bytes, whatever the width. The bits after the last index are zero.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .ranges import check_bit_width

_GROUP = 8  # indices; the smallest number of them that fills whole bytes at every width


def packed_size(num_indices: int, bit_width: int) -> int:
    """Bytes that so many indices take.

    Example:
        >>> packed_size(5, 3)
        2
    """
    return (num_indices * bit_width + 7) // 8


def pack(indices: Tensor, bit_width: int) -> Tensor:
    """Pack indices into bytes.

    Args:
        indices: Integers 0 to ``2**bit_width - 1``, any shape and integer dtype.
        bit_width: Bits of an index, 1 to 8.

    Returns:
        (packed_size,) uint8, on the device of ``indices``.

    Raises:
        ValueError: ``bit_width`` or an index is out of its range.

    Example:
        >>> pack(torch.tensor([1, 2, 3, 0, 1]), 2).tolist()
        [57, 1]
    """
    check_bit_width(bit_width, 1, 'pack')
    flat = indices.reshape(-1).to(torch.int64)
    if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < 2**bit_width:
        raise ValueError(f'pack: {bit_width} bits hold the indices 0 to {2**bit_width - 1}, but '
                         f'got {int(flat.min())} to {int(flat.max())}.')
    groups = _padded(flat, _GROUP) << _offsets(_GROUP, bit_width, flat)
    # The bits don't overlap, so the sum is their union.
    words = groups.sum(dim=1, keepdim=True)
    content = (words >> _offsets(bit_width, 8, flat)) & 255
    return content.reshape(-1)[:packed_size(len(flat), bit_width)].to(torch.uint8)


def unpack(content: Tensor, bit_width: int, num_indices: int) -> Tensor:
    """The indices that :func:`pack` was given.

    Args:
        content: (packed_size,) uint8.
        bit_width: Bits of an index, 1 to 8.
        num_indices: How many they are.

    Returns:
        (num_indices,) uint8, on the device of ``content``.

    Raises:
        ValueError: ``content`` has another dtype or number of bytes, or a bit is set behind the
            last index.

    Example:
        >>> unpack(torch.tensor([57, 1], dtype=torch.uint8), 2, 5).tolist()
        [1, 2, 3, 0, 1]
    """
    check_bit_width(bit_width, 1, 'unpack')
    expected = (packed_size(num_indices, bit_width), )
    if content.dtype != torch.uint8 or tuple(content.shape) != expected:
        raise ValueError(f'unpack: {num_indices} indices of {bit_width} bits are {expected[0]} '
                         f'bytes (uint8), but got {tuple(content.shape)} of {content.dtype}.')
    data = content.to(torch.int64)
    words = (_padded(data, bit_width) << _offsets(bit_width, 8, data)).sum(dim=1, keepdim=True)
    # The shift of a negative word brings in ones from the left, which the mask takes away.
    indices = ((words >> _offsets(_GROUP, bit_width, data)) & (2**bit_width - 1)).reshape(-1)
    if indices[num_indices:].any():
        raise ValueError('unpack: bits behind the last index are set, so these are no indices of '
                         f'{bit_width} bits.')
    return indices[:num_indices].to(torch.uint8)


def _padded(values: Tensor, length: int) -> Tensor:
    """The values (N,), with zeros behind, as rows (ceil(N / length), length)."""
    return torch.nn.functional.pad(values, (0, -len(values) % length)).view(-1, length)


def _offsets(count: int, step: int, like: Tensor) -> Tensor:
    return torch.arange(0, count * step, step, device=like.device)
