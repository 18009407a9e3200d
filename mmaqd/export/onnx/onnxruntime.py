"""The operators whose integer kernels ONNX Runtime has."""
from __future__ import annotations

import numpy as np

from ..graph import Conv, saturates_int16
from .spelling import Speller

_SAFE_ZERO = 128


class OnnxRuntimeSpeller(Speller):
    """Convs as QLinearConv and ConvInteger: exact without any optimization of the graph too.

    Convs between DequantizeLinear and QuantizeLinear become QLinearConv when they are optimized,
    and run in float, with other roundings, when they are not.
    """

    def conv_to_codes(self, node: Conv, name: str) -> str:
        builder = self.builder
        codes, pads = self.padded(node, name)
        weight, zero = self._weight(node)
        factors = self.factors(node.requantization, len(node.bias))
        inputs = [
            codes,
            self.one(),
            self.zero_point(node.inputs[0]), weight,
            builder.constant(factors, name=f'{name}.factors'), zero,
            self.one(),
            self.zero_point(node.output),
            builder.constant(node.bias, np.int32, f'{name}.bias')
        ]
        stored = builder.node('QLinearConv', inputs, self.unclipped(node.output, name),
                              **_geometry(node, pads))
        return self.clipped(stored, node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        builder = self.builder
        codes, pads = self.padded(node, name)
        weight, zero = self._weight(node)
        sums = builder.node('ConvInteger',
                            [codes, weight, self.zero_point(node.inputs[0]), zero],
                            f'{name}.products', **_geometry(node, pads))
        return self.scaled(sums, node, name)

    def _weight(self, node: Conv) -> tuple[str, str]:
        """Weights and their zero point; uint8 where int8 kernels could saturate."""
        weight = self.graph.weights[node.weight]
        if not saturates_int16(self.graph, node) and abs(weight).max() < _SAFE_ZERO:
            return self.weight(node.weight, np.int8, 0), self.scalar(0, np.int8)
        return (self.weight(node.weight, np.uint8, _SAFE_ZERO), self.scalar(_SAFE_ZERO, np.uint8))


def _geometry(node: Conv, pads: list[int]) -> dict:
    return dict(strides=node.stride, pads=pads, dilations=node.dilation, group=node.groups)
