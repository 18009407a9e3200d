"""In which integers each feature map is stored.

- Both operands and the sum of an addition share one unit, a stream: 8-bit codes, calibrated. The
  additions of a ResNet stage, and those of the top-down path, are joined to one stream each.
- A feature map that is read with one quantization only is stored in its codes.
- One that is read with several is stored in 8-bit codes over the largest of their ranges.

Convs that read other codes than those that are stored requantize them.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from .values import ConvValue, Image, Pooled, Quantized, Sum, Upsampled, Value


@dataclass(frozen=True)
class Format:
    """Codes qmin..qmax of a unit; ``offset`` is the real value of the code 0."""

    qmin: int
    qmax: int
    unit: float
    offset: float = 0.0


@dataclass(frozen=True)
class StreamCodes:
    """Codes of a stream: ``bit_width`` bits of a unit, signed where a member can be negative."""

    unit: float
    bit_width: int


def root(value: Value) -> Value:
    """What a value is stored with: max-pooling and upsampling keep the codes of their input."""
    while isinstance(value, (Pooled, Upsampled)):
        value = value.source
    return value


def operands(value: Value) -> tuple[Value, ...]:
    """The values that a value is computed from."""
    if isinstance(value, Image):
        return ()
    return value.operands if isinstance(value, Sum) else (value.source, )


def ordered(results: Iterable[Value]) -> list[Value]:
    """All values that the results need, each after its operands."""
    found: dict[Value, None] = {}
    stack = [(value, False) for value in reversed(list(results))]
    while stack:
        value, done = stack.pop()
        if done:
            found.setdefault(value)
        elif value not in found:
            stack.append((value, True))
            stack.extend((each, False) for each in reversed(operands(value)))
    return list(found)


class Streams:
    """The additions of a network, joined where the sum of one is an operand of the next.

    Args:
        values: All values of a network.
    """

    def __init__(self, values: Iterable[Value]) -> None:
        self._joined: dict[Value, Value] = {}
        for value in values:
            if isinstance(value, Sum):
                for operand in value.operands:
                    self._joined[self.leader(root(operand))] = self.leader(value)

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, Sum) or value in self._joined

    def leader(self, value: Value) -> Value:
        """The member that stands for the stream of ``value``, a sum or operand of one."""
        while value in self._joined and self._joined[value] is not value:
            value = self._joined[value]
        return value

    def members(self) -> dict[Value, list[Value]]:
        """All members by the one that stands for them."""
        found: dict[Value, list[Value]] = {}
        for value in self._joined:
            found.setdefault(self.leader(value), []).append(value)
        for leader in found:
            if leader not in found[leader]:
                found[leader].append(leader)
        return found


def readings(values: Iterable[Value]) -> dict[Value, dict[tuple, Quantized]]:
    """The quantizations with which convs read each root, by their key."""
    found: dict[Value, dict[tuple, Quantized]] = {}
    for value in values:
        if isinstance(value, ConvValue) and value.quantized is not None:
            found.setdefault(root(value.source), {})[value.quantized.key] = value.quantized
    return found


def stream_format(member: Value, codes: StreamCodes) -> Format:
    """Codes of a member of a stream: unsigned if no number is negative."""
    count = 2**codes.bit_width
    low = 0 if member.nonnegative else -count // 2
    return Format(low, low + count - 1, codes.unit)


def format_of_readings(value: Value, read: Iterable[Quantized]) -> Format:
    """What a root outside of streams is stored in."""
    read = list(read)
    if len(read) == 1:
        grid = read[0].grid
        return Format(grid.qmin, grid.qmax, read[0].unit, read[0].offset)
    low = min(each.unit * each.grid.qmin + each.offset for each in read)
    high = max(each.unit * each.grid.qmax + each.offset for each in read)
    if value.nonnegative or low >= 0:
        return Format(0, 255, high / 255)
    return Format(-128, 127, max(high / 127, -low / 128))
