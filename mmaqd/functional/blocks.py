"""Go over large tensors in blocks that stay in the processor's cache.

Several elementwise operations one after another read and write memory each time. Done block by
block they do so once, and they need no new memory, which on a CPU costs more than the arithmetic.
"""
from __future__ import annotations

from typing import Iterator, Optional

import torch
from torch import Tensor

# Elements of a block. Two or three blocks of float32 fit a core's second-level cache, and a block
# is large enough to be shared between threads.
BLOCK = 2**18

# torch 2.1 has no such function
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of matching parts of ``tensors``, which together are the tensors.

    Args:
        *tensors: Of one shape.

    Yields:
        One view per tensor. On a CPU these are flat parts of at most :data:`BLOCK` elements, where
        the tensors lie in memory alike; elsewhere the tensors themselves.
    """
    flat = flattened(tensors) if _worth_it(tensors[0]) else None
    if flat is None:
        yield tensors
    else:
        yield from zip(*(tensor.split(BLOCK) for tensor in flat))


def _worth_it(x: Tensor) -> bool:
    # A compiler fuses the operations itself.
    return x.device.type == 'cpu' and x.numel() > BLOCK and not is_compiling()


def flattened(tensors: tuple[Tensor, ...]) -> Optional[list[Tensor]]:
    """Vectors that share memory with ``tensors``; None where these do not lie in memory alike."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1) for tensor in tensors]
    if all(_is_channels_last(tensor) for tensor in tensors):
        return [tensor.permute(0, 2, 3, 1).view(-1) for tensor in tensors]
    return None


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
