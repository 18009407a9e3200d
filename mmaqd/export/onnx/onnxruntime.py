"""The operators whose integer kernels ONNX Runtime has."""
from __future__ import annotations

from typing import Any

import numpy as np

from mmaqd.export.graph import Conv, Node, Requantize

from .packed import add_packed, pack
from .spelling import Speller, geometry

_SAFE_ZERO = 128
_LARGEST = 255


class OnnxRuntimeSpeller(Speller):
    """Convs as QLinearConv and ConvInteger: exact without any optimization of the graph too.

    Convs between DequantizeLinear and QuantizeLinear become QLinearConv when they are optimized,
    and run in float, with other roundings, when they are not.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._unpacked: dict[tuple[str, int], str] = {}

    def conv_to_codes(self, node: Conv, name: str) -> str:
        codes, pads = self.padded(node, name)
        factors = self.factors(node.requantization, len(node.bias))
        zero = _SAFE_ZERO if self.saturates(node) else 0
        stored = self._linear_conv(node, codes, self._weight(node.weight, zero), factors, node.bias,
                                   name, **geometry(node, pads))
        return self.clipped(stored, node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        """A ConvInteger, whose kernel for int8 weights is several times slower than for uint8."""
        codes, pads = self.padded(node, name)
        weight, zero = self._weight(node.weight, _SAFE_ZERO)
        sums = self.builder.node(
            'ConvInteger', [codes, weight, self.zero_point(node.inputs[0]), zero],
            f'{name}.products', **geometry(node, pads))
        return self.scaled(sums, node, name)

    def requantize(self, node: Requantize, name: str) -> str:
        """A product of codes and a constant, which becomes a multiplication of integers."""
        source, factor = node.inputs[0], node.requantization.factor
        shifted_zero = self.zero(source) - node.bias
        if not 0 <= shifted_zero <= _LARGEST:
            return self._requantize_by_conv(node, name)
        builder = self.builder
        zeros = [self.scalar(each, np.uint8) for each in (shifted_zero, 0)]
        codes = builder.node('DequantizeLinear',
                             [self.tensors[source], self.one(), zeros[0]], f'{name}.codes')
        scale = self.scalar(factor[0], np.float32)
        constant = builder.node('DequantizeLinear', [self.scalar(1, np.uint8), scale, zeros[1]],
                                f'{name}.factor')
        real = builder.node('Mul', [codes, constant], f'{name}.scaled')
        return self.quantized(real, node.output, name)

    def _requantize_by_conv(self, node: Requantize, name: str) -> str:
        """A conv of one weight for each channel, since zero points of uint8 don't hold the bias."""
        channels = self.channels(node.inputs[0])
        ones = self.builder.constant(np.ones((channels, 1, 1, 1)), np.int8)
        bias = np.full(channels, node.bias)
        factors = self.factors(node.requantization, channels)
        stored = self._linear_conv(
            node,
            self.tensors[node.inputs[0]], (ones, self.scalar(0, np.int8)),
            factors,
            bias,
            name,
            group=channels)
        return self.clipped(stored, node.output, name)

    def _linear_conv(self, node: Node, codes: str, weight: tuple[str, str], factors: np.ndarray,
                     bias: np.ndarray, name: str, **attributes: Any) -> str:
        """Stored codes of a conv before they are clipped to fewer than 8 bits."""
        builder = self.builder
        inputs = [
            codes,
            self.one(),
            self.zero_point(node.inputs[0]), weight[0],
            builder.constant(factors, name=f'{name}.factors'), weight[1],
            self.one(),
            self.zero_point(node.output),
            builder.constant(bias, np.int32, f'{name}.bias')
        ]
        return builder.node('QLinearConv', inputs, self.unclipped(node.output, name), **attributes)

    def _weight(self, key: str, zero: int) -> tuple[str, str]:
        """Weights and their zero point: int8 without one, uint8 with one."""
        dtype = np.uint8 if zero else np.int8
        packing = pack(self.graph.weights[key]) if self.packed else None
        if packing is None:
            return self.weight(key, dtype, zero), self.scalar(zero, dtype)
        if (key, zero) not in self._unpacked:
            self._unpacked[key, zero] = add_packed(self.builder, packing, f'{key}.weight', zero)
        return self._unpacked[key, zero], self.scalar(zero, dtype)
