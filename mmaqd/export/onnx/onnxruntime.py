"""The operators whose integer kernels ONNX Runtime has."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Conv, Node, Requantize
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
        self._unpacked: dict[str, str] = {}

    def conv_to_codes(self, node: Conv, name: str) -> str:
        codes, pads = self.padded(node, name)
        factors = self.factors(node.requantization, len(node.bias))
        stored = self._linear_conv(node, codes, self._weight(node), factors, node.bias, name,
                                   **geometry(node, pads))
        return self.clipped(stored, node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        builder = self.builder
        codes, pads = self.padded(node, name)
        weight, zero = self._weight(node)
        sums = builder.node('ConvInteger',
                            [codes, weight, self.zero_point(node.inputs[0]), zero],
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

    def _weight(self, node: Conv) -> tuple[str, str]:
        """Weights and their zero point; uint8 where int8 kernels could saturate."""
        if not self.saturates(node):
            return self._int8_weight(node.weight), self.scalar(0, np.int8)
        return (self.weight(node.weight, np.uint8, _SAFE_ZERO), self.scalar(_SAFE_ZERO, np.uint8))

    def _int8_weight(self, key: str) -> str:
        packing = pack(self.graph.weights[key]) if self.packed else None
        if packing is None:
            return self.weight(key, np.int8, 0)
        if key not in self._unpacked:
            self._unpacked[key] = add_packed(self.builder, packing, f'{key}.weight')
        return self._unpacked[key]
