"""The integer graph: what a low-bit detector computes, as plain value objects.

An edge carries integer codes (:class:`Codes`) or real numbers (:class:`Real`); a node computes one
edge. Nothing here knows torch, ONNX or an engine: writers turn the graph into what runs.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator

import numpy as np


@dataclass(frozen=True)
class Codes:
    """An edge of integer codes: the real value is ``unit * code + offset``.

    Attributes:
        name: Unique in the graph.
        qmin: Smallest code.
        qmax: Largest code.
        unit: Real value of one step.
        offset: Real value of the code 0; only LSQ+ has one.
    """

    name: str
    qmin: int
    qmax: int
    unit: float
    offset: float = 0.0

    @property
    def magnitude(self) -> int:
        """Largest absolute value of a code."""
        return max(self.qmax, -self.qmin)


@dataclass(frozen=True)
class Real:
    """An edge of float32 numbers: predictions."""

    name: str


Edge = Codes | Real


@dataclass(frozen=True, eq=False)
class Requantization:
    """codes = clip(a * multiplier / 2^shift, qmin, qmax), rounded half to even.

    Attributes:
        multiplier: M, positive, int64 (C,), or (1,) for all channels.
        shift: k, at least 1, int64 of the same shape.
    """

    multiplier: np.ndarray
    shift: np.ndarray

    @property
    def factor(self) -> np.ndarray:
        """M / 2^k, float64; exact in float32 too."""
        return np.ldexp(self.multiplier.astype(np.float64), -self.shift)


@dataclass(frozen=True)
class Node:
    """One computation.

    Attributes:
        name: Unique; that of the layer where there is one, with ``[i]`` for its i-th use.
        inputs: Names of the edges it reads.
        output: Name of the edge it gives.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """a = sum(w q) + bias as int32, then requantized to codes, or scaled to real numbers.

    Attributes:
        weight: Key into :attr:`IntegerGraph.weights`, (C_out, C_in / groups, K_h, K_w).
        bias: int64 (C_out,), within int32.
        stride, padding, dilation: (height, width) each.
        groups: As for any conv.
        pad_codes: Codes that padding consists of, int64 (C_in,) or (1,).
        bound: Largest |a| that any input can give.
        requantization: To the codes of the output; None for real numbers.
        scale: float32 (C_out,), the real numbers are ``float32(a) * scale``; None for codes.
        rectified: Whether real numbers are clipped at zero; codes are by their range.
    """

    weight: str
    bias: np.ndarray
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    pad_codes: np.ndarray
    bound: int
    requantization: Requantization | None = None
    scale: np.ndarray | None = None
    rectified: bool = False


@dataclass(frozen=True, eq=False)
class FloatConv(Node):
    """A conv that was left in float, of real numbers or of the image.

    Attributes:
        weight: Key into :attr:`IntegerGraph.weights`, float32.
        bias: float32 (C_out,).
        stride, padding, dilation, groups: As for :class:`Conv`.
        pad: What padding consists of, float32 (C_in,) or (1,).
        rectified: Whether the result is clipped at zero.
    """

    weight: str
    bias: np.ndarray
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    pad: np.ndarray
    rectified: bool = False


@dataclass(frozen=True)
class Quantize(Node):
    """Real numbers to the nearest codes, half to even."""


@dataclass(frozen=True, eq=False)
class Requantize(Node):
    """Codes of one unit to codes of another: ``q + bias`` requantized."""

    requantization: Requantization
    bias: int = 0


@dataclass(frozen=True)
class Add(Node):
    """Sum of two edges of one unit, clipped to the codes of the output."""


@dataclass(frozen=True)
class MaxPool(Node):
    """Largest code of a window; padding never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False


@dataclass(frozen=True)
class Upsample(Node):
    """Nearest neighbours: the first input at the size of the second, or ``factor`` times larger."""

    factor: tuple[int, int] | None = None


@dataclass(frozen=True)
class Apply(Node):
    """An elementwise function of real numbers, ``'exp'`` or ``'sigmoid'``, or the real values of
    codes, ``'dequantize'``.
    """

    function: str = 'dequantize'


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A network of integers from the 8-bit image to the predictions.

    Attributes:
        image: The input edge, (N, C, H, W) of codes 0..255.
        edges: Every edge by name, the image too.
        nodes: In an order in which they can be computed.
        weights: Weight codes, int8 arrays; float32 of convs left in float.
        outputs: Names of the predictions; one tuple over the levels for each kind.
        notes: What was approximated beyond rounding, a sentence each.
    """

    image: Codes
    edges: dict[str, Edge]
    nodes: tuple[Node, ...]
    weights: dict[str, np.ndarray]
    outputs: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def convs(self) -> Iterator[Conv]:
        """The convs in order."""
        return (node for node in self.nodes if isinstance(node, Conv))

    def __str__(self) -> str:
        from .table import format_graph
        return format_graph(self)


def saturates_int16(graph: IntegerGraph, conv: Conv) -> bool:
    """Whether two products of a conv can leave int16, where int8 kernels without VNNI add them.

    All engines add the bias of such a conv before they multiply.
    """
    return leaves_int16(graph.edges[conv.inputs[0]], graph.weights[conv.weight])


def leaves_int16(codes: Codes, weights: np.ndarray) -> bool:
    """Whether the sum of two products of codes and weight codes can."""
    span = codes.qmax - min(codes.qmin, 0)
    return 2 * span * int(np.abs(weights.astype(np.int64)).max(initial=0)) > 32767
