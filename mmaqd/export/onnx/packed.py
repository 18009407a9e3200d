"""Weights stored in 4 or 2 bits; ONNX Runtime unpacks them to int8 when a session starts."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmaqd.export.graph import IntegerGraph

from .builder import Builder

# Bits: the type's name, and the first opset and version of the format that have it.
_TYPES = {2: ('UINT2', 25, 13), 4: ('UINT4', 21, 10)}


@dataclass(frozen=True)
class Packing:
    """Weights as ``step * numbers + lowest``.

    Attributes:
        bits: Of the numbers, 1 to 8.
        numbers: Unsigned numbers of so many bits, uint8, of the weights' shape.
        step: Between two codes that occur; 2 on LIQ's odd grid.
        lowest: Smallest code.
    """

    bits: int
    numbers: np.ndarray
    step: int
    lowest: int


def grid(weight: np.ndarray) -> Packing:
    """The fewest bits that hold weight codes.

    Example:
        >>> found = grid(np.array([-3, -1, 3, 1]))
        >>> found.bits, found.step, found.lowest
        (2, 2, -3)
    """
    weight = weight.astype(np.int64)
    lowest = int(weight.min())
    step = max(int(np.gcd.reduce(weight - lowest, axis=None)), 1)
    numbers = ((weight - lowest) // step).astype(np.uint8)
    return Packing(max(int(numbers.max()).bit_length(), 1), numbers, step, lowest)


def pack(weight: np.ndarray) -> Packing | None:
    """The smallest type that holds weight codes; None for int8.

    Example:
        >>> pack(np.array([-7, -5, 7, 1])).bits
        4
    """
    found = grid(weight)
    for bits in sorted(_TYPES):
        if found.bits <= bits:
            return replace(found, bits=bits)
    return None


def packed_versions(graph: IntegerGraph) -> tuple[int, int]:
    """Opset and version of the format that packed weights of a graph need at least."""
    packings = (pack(graph.weights[conv.weight]) for conv in graph.convs())
    needed = {packing.bits for packing in packings if packing}
    versions = [_TYPES[bits][1:] for bits in needed]
    return max(versions, default=_TYPES[4][1:])


def add_packed(builder: Builder, packing: Packing, name: str, zero: int = 0) -> str:
    """Add packed weights and what unpacks them, without leaving the range of a type.

    Returns:
        Name of the int8 tensor, or of a uint8 one whose zero point is ``zero``.
    """
    helper, types = builder.onnx.helper, builder.onnx.TensorProto
    dtype, number = (np.uint8, types.UINT8) if zero else (np.int32, types.INT32)
    stored = builder.initializer(
        helper.make_tensor('', getattr(types, _TYPES[packing.bits][0]), packing.numbers.shape,
                           _bytes(packing), raw=True), f'{name}.packed')  # yapf: disable
    codes = builder.node('Cast', [stored], f'{name}.numbers', to=number)
    if packing.step != 1:
        step = builder.constant(packing.step, dtype)
        codes = builder.node('Mul', [codes, step], f'{name}.steps')
    lowest = builder.constant(packing.lowest + zero, dtype)
    if zero:
        return builder.node('Add', [codes, lowest], name)
    codes = builder.node('Add', [codes, lowest], f'{name}.codes')
    return builder.node('Cast', [codes], name, to=types.INT8)


def _bytes(packing: Packing) -> bytes:
    """Numbers side by side, the first in the lowest bits."""
    each = 8 // packing.bits
    flat = packing.numbers.reshape(-1)
    flat = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    return (flat << (packing.bits * np.arange(each, dtype=np.uint8))).sum(
        1, dtype=np.uint8).tobytes()
