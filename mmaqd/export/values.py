"""What a captured graph computes, before it is decided in which integers it is stored.

Each class stands for a tensor of real numbers. BN, bias and constant factors are folded into the
affine form of the conv in front of them, ReLU into a flag. ``nonnegative`` tells whether no number
is below zero.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmaqd.functional import IntegerGrid


@dataclass(frozen=True, eq=False)
class Image:
    """The normalized image: 8-bit integers minus an integer mean, (C,)."""

    mean: np.ndarray
    nonnegative = False


@dataclass(frozen=True, eq=False)
class Quantized:
    """How a conv reads its input: codes of a grid, ``unit * code + offset``."""

    grid: IntegerGrid
    unit: float
    offset: float = 0.0

    @property
    def key(self) -> tuple:
        """Equal for equal quantizations."""
        return self.grid, self.unit, self.offset


@dataclass(frozen=True, eq=False)
class ConvValue:
    """``factor * sum(w q) + offset`` of a quantized conv, clipped at zero if rectified.

    Attributes:
        name: Of the conv's layer, with ``[i]`` at its i-th use.
        layer: Of the conv's layer.
        source: What the conv reads.
        quantized: How it reads that; None for the image, and in float.
        codes: Weight codes, int16 (C_out, C_in / groups, K_h, K_w), or float32 weights.
        geometry: stride, padding, dilation, groups.
        factor: float64 (C_out,).
        offset: float64 (C_out,).
        rectified: Whether a ReLU follows.
    """

    name: str
    layer: str
    source: Value
    quantized: Quantized | None
    codes: np.ndarray
    geometry: tuple
    factor: np.ndarray
    offset: np.ndarray
    rectified: bool = False

    @property
    def nonnegative(self) -> bool:
        return self.rectified

    @property
    def in_float(self) -> bool:
        """Whether it was left in float."""
        return self.codes.dtype == np.float32

    def affine(self, factor: np.ndarray, offset: np.ndarray) -> ConvValue:
        """``factor * self + offset``, both (C_out,) or numbers."""
        return replace(self, factor=self.factor * factor, offset=self.offset * factor + offset)


@dataclass(frozen=True, eq=False)
class Sum:
    """A skip or top-down connection."""

    name: str
    operands: tuple[Value, Value]
    rectified: bool = False

    @property
    def nonnegative(self) -> bool:
        return self.rectified or all(each.nonnegative for each in self.operands)


@dataclass(frozen=True, eq=False)
class Pooled:
    """Max-pooling."""

    name: str
    source: Value
    geometry: dict

    @property
    def nonnegative(self) -> bool:
        return self.source.nonnegative


@dataclass(frozen=True, eq=False)
class Upsampled:
    """Nearest neighbours, from one size (height, width) to another."""

    name: str
    source: Value
    sizes: tuple[tuple[int, int], tuple[int, int]]

    @property
    def nonnegative(self) -> bool:
        return self.source.nonnegative


@dataclass(frozen=True, eq=False)
class Applied:
    """A function of predictions, see :class:`mmaqd.export.graph.Apply`."""

    name: str
    source: Value
    function: str
    nonnegative = True  # exp and sigmoid


Value = Image | ConvValue | Sum | Pooled | Upsampled | Applied
