"""Integer graphs made by hand: every kind of node with random integers."""
from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from mmaqd.export.graph import (Add, Apply, Codes, Conv, IntegerGraph, MaxPool, Real, Requantize,
                                Upsample)
from mmaqd.export.multipliers import choose_multipliers


class GraphMaker:
    """Adds nodes one by one; each method returns the name of the edge.

    Args:
        rng: Where the integers come from.
        channels: Of the image.
    """

    def __init__(self, rng: np.random.Generator, channels: int = 3) -> None:
        self.rng = rng
        self.channels = {'input': channels}
        self.edges: dict[str, Any] = {'input': Codes('input', 0, 255, 1.0)}
        self.nodes: list = []
        self.weights: dict[str, np.ndarray] = {}

    def conv(self,
             source: str,
             channels: int,
             codes: tuple[int, int] | None = (0, 15),
             *,
             kernel: int = 3,
             stride: int = 1,
             padding: int = 1,
             dilation: int = 1,
             groups: int = 1,
             bits: int = 4,
             weight: str | None = None,
             pad_codes: Sequence[int] = (0, ),
             bias_spread: float = 1.0,
             rectified: bool = False) -> str:
        """A conv to ``codes``, or to real numbers for None; most of its outputs are not clipped."""
        name = f'conv{len(self.nodes)}'
        given = self.edges[source]
        weight = weight or name
        if weight not in self.weights:
            shape = (channels, self.channels[source] // groups, kernel, kernel)
            top = 2**(bits - 1) if bits < 8 else 127
            self.weights[weight] = self.rng.integers(
                -top, top, shape, endpoint=True).clip(-127, 127).astype(np.int8)
        flat = self.weights[weight].reshape(channels, -1).astype(np.int64)
        ends = flat * given.qmin, flat * given.qmax
        low, high = np.minimum(*ends).sum(1), np.maximum(*ends).sum(1)
        spread = max(3 * np.sqrt(flat.shape[1]) * np.abs(flat).mean() * given.magnitude / 3, 1.0)
        middle = -(flat.sum(1) * (given.qmin + given.qmax)) // 2
        bias = middle + np.round(self.rng.normal(0, spread, channels) * bias_spread).astype(
            np.int64)
        requantization = scale = None
        if codes is None:
            scale = self.rng.uniform(1e-4, 1e-3, channels).astype(np.float32)
        else:
            factor = self.rng.uniform(0.3, 1, channels) * (codes[1] - codes[0]) / spread
            requantization, bias = choose_multipliers(factor, low, high, bias * factor, *codes)
            bias = bias.astype(np.int64)
        bound = int(max(np.abs(low + bias).max(), np.abs(high + bias).max()))
        return self._add(
            Conv(name, (source, ), name, weight, bias,
                 (stride, stride), (padding, padding), (dilation, dilation), groups,
                 np.array(pad_codes), bound, requantization, scale, rectified and codes is None),
            codes, channels)

    def requantize(self,
                   source: str,
                   codes: tuple[int, int],
                   bias: int = 0,
                   factor: float | None = None) -> str:
        """Codes of one unit to another."""
        name, given = f'requantize{len(self.nodes)}', self.edges[source]
        span = given.qmax - given.qmin
        factor = factor or self.rng.uniform(0.5, 1.5) * (codes[1] - codes[0]) / span
        chosen, biases = choose_multipliers(
            np.array([factor]), np.array([given.qmin]), np.array([given.qmax]),
            np.array([bias * factor]), *codes)
        return self._add(
            Requantize(name, (source, ), name, chosen, int(biases[0])), codes,
            self.channels[source])

    def add(self, a: str, b: str, codes: tuple[int, int] = (0, 255)) -> str:
        """A sum."""
        name = f'add{len(self.nodes)}'
        return self._add(Add(name, (a, b), name), codes, self.channels[a])

    def max_pool(self,
                 source: str,
                 kernel: int = 3,
                 stride: int = 2,
                 padding: int = 1,
                 ceil_mode: bool = False) -> str:
        """Largest codes."""
        name, given = f'pool{len(self.nodes)}', self.edges[source]
        return self._add(
            MaxPool(
                name, (source, ),
                name, (kernel, kernel), (stride, stride), (padding, padding),
                ceil_mode=ceil_mode), (given.qmin, given.qmax), self.channels[source])

    def upsample(self,
                 source: str,
                 like: str | None = None,
                 factor: tuple[int, int] | None = None) -> str:
        """Nearest neighbours."""
        name, given = f'upsample{len(self.nodes)}', self.edges[source]
        inputs = (source, ) if like is None else (source, like)
        return self._add(
            Upsample(name, inputs, name, factor), (given.qmin, given.qmax), self.channels[source])

    def apply(self, source: str, function: str = 'dequantize') -> str:
        """Real numbers."""
        name = f'apply{len(self.nodes)}'
        return self._add(Apply(name, (source, ), name, function), None, self.channels[source])

    def graph(self, *outputs: tuple[str, ...]) -> IntegerGraph:
        """Everything so far."""
        return IntegerGraph(self.edges['input'], self.edges, tuple(self.nodes), self.weights,
                            outputs)

    def _add(self, node: Any, codes: tuple[int, int] | None, channels: int) -> str:
        name = node.output
        self.nodes.append(node)
        self.edges[name] = Real(name) if codes is None else Codes(name, *codes, 0.5)
        self.channels[name] = channels
        return name


def random_detector(seed: int,
                    weight_bits: int = 4,
                    input_bits: int = 4,
                    signed: bool = False,
                    pad_code: int = 0,
                    groups: int = 2,
                    dilation: int = 2) -> IntegerGraph:
    """A small detector of two levels: residual and top-down additions whose operands are clipped,
    convs that share weights, and inputs that are requantized with a bias.

    Args:
        seed: Of all integers.
        weight_bits, input_bits: Of all convs but the first and the predictions, which have 8.
        signed: Whether convs read codes on both sides of zero.
        pad_code: What convs pad with.
        groups, dilation: Of one conv.
    """
    make = GraphMaker(np.random.default_rng(seed))
    codes = (-2**(input_bits - 1), 2**(input_bits - 1) - 1) if signed else (0, 2**input_bits - 1)
    options = dict(bits=weight_bits, pad_codes=(pad_code, ))
    both, up = (-128, 127), (0, 255)
    stem = make.conv(
        'input', 16, up, kernel=5, stride=2, padding=2, bits=8, pad_codes=(124, 116, 104))
    x = make.max_pool(stem)
    read = make.requantize(x, codes)
    hidden = make.conv(
        read, 16, codes, dilation=dilation, padding=dilation, groups=groups, **options)
    c1 = make.add(make.conv(hidden, 16, both, bias_spread=3, **options), x, up)
    hidden = make.conv(make.requantize(c1, codes), 16, codes, stride=2, **options)
    branch = make.conv(hidden, 16, both, bias_spread=3, **options)
    down = make.conv(
        make.requantize(c1, codes, bias=-5), 16, both, kernel=1, stride=2, padding=0, **options)
    c2 = make.add(branch, down, up)
    top = make.conv(make.requantize(c2, codes, bias=300), 8, both, kernel=1, padding=0, **options)
    lateral = make.conv(make.requantize(c1, codes, bias=7), 8, both, kernel=1, padding=0, **options)
    fine = make.add(lateral, make.upsample(top, like=lateral), both)
    outputs = []
    for level in (fine, make.upsample(top, factor=(2, 1))):
        tower = make.conv(make.requantize(level, codes), 8, up, weight='tower', **options)
        outputs.append(
            (make.conv(tower, 5, None, weight='cls',
                       bits=8), make.conv(tower, 4, None, weight='reg', bits=8, rectified=True)))
    return make.graph(*zip(*outputs))
