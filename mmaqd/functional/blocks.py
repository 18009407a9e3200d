"""Go over large tensors in blocks, so that what is computed in between stays small.

Several elementwise operations one after another read and write memory each time. On a CPU a block
stays in the cache, so that its memory is read and written once, and no new memory is needed, which
costs more than the arithmetic. On a GPU blocks only bound the memory: half precision is computed
with in float32, and five tensors of that size are several times the memory of the input.
"""
from __future__ import annotations

from typing import Iterable

import torch
from torch import Tensor

# Elements of a block. On a CPU two or three blocks of float32 fit a core's second-level cache, and
# one is large enough to be shared between threads. Elsewhere a block should keep the device busy
# for longer than it takes to start an operation on it.
CPU_BLOCK = 2**18
BLOCK = 2**24

# torch 2.1 has no such functions
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)
is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Views of matching parts of ``tensors``, which together are the tensors.

    Args:
        *tensors: Of one shape.

    Returns:
        One view per tensor at a time. Large tensors that lie in memory alike come in flat parts of
        at most :data:`CPU_BLOCK` or :data:`BLOCK` elements, others as they are.
    """
    # A compiler fuses the operations itself.
    if is_one_block(tensors[0]) or is_compiling():
        return [tensors]
    size = CPU_BLOCK if tensors[0].device.type == 'cpu' else BLOCK
    flat = flattened(tensors) if tensors[0].numel() > size else None
    return [tensors] if flat is None else zip(*(tensor.split(size) for tensor in flat))


def is_one_block(x: Tensor) -> bool:
    """Whether ``x`` is small enough for one block on every device."""
    return x.numel() <= CPU_BLOCK


def flattened(tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
    """Vectors that share memory with ``tensors``; None where these do not lie in memory alike."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1) for tensor in tensors]
    if all(is_channels_last(tensor) for tensor in tensors):
        return [tensor.permute(0, 2, 3, 1).view(-1) for tensor in tensors]
    return None


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is (N, C, H, W) and lies dense in memory with its channels last."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
