"""The operators that OpenVINO runs on integer kernels."""
from __future__ import annotations

from typing import Any

import numpy as np

from mmaqd.export.graph import Add, Conv, saturates_int16

from .spelling import Speller, geometry

_EXACT = 2**24  # integers up to it are exact in float32
_HALF = 16
_NO_BOUND = 2.0**31


class OpenVinoSpeller(Speller):
    """Convs of dequantized codes, which OpenVINO runs on int8 kernels: float32(sum) * scale + bias.

    Real numbers need float32(sum + bias) * scale. A Clip that clips nothing keeps OpenVINO from
    multiplying sum and bias by the scale before it adds them; all of it is fused into the conv.

    Weights with which an int8 kernel could saturate, or float32 could round the sum, become two
    convs: w = 16 h + l, h and l of 4 bits and a sign. Their sums are exact in float32, so that the
    rounding of 16 h' + l' is the only one, as in the other engines.
    """

    def conv_to_codes(self, node: Conv, name: str) -> str:
        factors = self.factors(node.requantization, len(node.bias))
        if saturates_int16(self.graph, node):
            return self.quantized(self._exactly(node, factors, name), node.output, name)
        scale = self.builder.constant(factors, name=f'{name}.factors')
        bias = self.builder.node(
            'DequantizeLinear',
            [self.builder.constant(node.bias, np.int32, f'{name}.bias.codes'), scale],
            f'{name}.bias',
            axis=0)
        sums = self._conv(node, self.graph.weights[node.weight], scale, bias, f'{name}.sums')
        return self.quantized(sums, node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        if not node.rectified:
            return self._exactly(node, node.scale, name, name)
        return self.builder.node('Relu', [self._exactly(node, node.scale, name)], name)

    def quantized(self, real: str, edge: str, name: str) -> str:
        """Codes of an edge; where OpenVINO would not round them right, rounded before.

        It adds the zero point of codes that can be negative before it rounds, and a float32 number
        near half a code can become half a code then. And it computes an addition behind a conv in
        the conv, and leaves out the rounding of the codes between, not their clipping: half a code
        is rounded with the sum's parity then.
        """
        if self.zero(edge) or self._is_added(edge):
            real = self.builder.node('Round', [real], f'{name}.integers')
        return super().quantized(real, edge, name)

    def _is_added(self, edge: str) -> bool:
        return any(isinstance(node, Add) and edge in node.inputs for node in self.graph.nodes)

    def _exactly(self, node: Conv, scale: np.ndarray, name: str, output: str = '') -> str:
        """float32(sum + bias) * scale, the sum rounded once."""
        builder = self.builder
        products = self._largest_products(node)
        split = self.saturates(node) or products > _EXACT
        if split and products > _HALF * _EXACT:
            raise ValueError(f'{node.name}: its sums may reach {products}, more than OpenVINO can '
                             'add exactly in two convs. Give its weights or inputs fewer bits.')
        low_part = products // 8 if split else products
        if np.abs(node.bias).max() + low_part > _EXACT:
            real = self._integer_sum(node, split, name)
        else:
            real = self._float_sum(node, split, name)
        factors = builder.constant(scale.reshape(1, -1, 1, 1), np.float32, f'{name}.scale')
        return builder.node('Mul', [real, factors], output or f'{name}.scaled')

    def _float_sum(self, node: Conv, split: bool, name: str) -> str:
        builder = self.builder
        weight = self.graph.weights[node.weight]
        bias = builder.constant(node.bias, np.float32, f'{name}.bias')
        if split:
            high, low = _halves(weight)
            sums = builder.node('Add', [
                self._conv(node, low, self._scale(node, 1), bias, f'{name}.low'),
                self._conv(node, high, self._scale(node, _HALF), None, f'{name}.high')
            ], f'{name}.sums')
        else:
            sums = self._conv(node, weight, self._scale(node, 1), bias, f'{name}.sums')
        bounds = [builder.constant(each, np.float32) for each in (-_NO_BOUND, _NO_BOUND)]
        return builder.node('Clip', [sums, *bounds], f'{name}.unclipped')

    def _integer_sum(self, node: Conv, split: bool, name: str) -> str:
        """The sum with a bias that float32 rounds: added as int32."""
        builder, types = self.builder, self.builder.onnx.TensorProto
        weight = self.graph.weights[node.weight]
        parts = zip(('high', 'low'), _halves(weight)) if split else [('all', weight)]
        products = {}
        for part, codes in parts:
            real = self._conv(node, codes, self._scale(node, 1), None, f'{name}.{part}')
            products[part] = builder.node('Cast', [real], f'{name}.{part}.int', to=types.INT32)
        if split:
            shifted = builder.node(
                'Mul', [products['high'], self.scalar(_HALF, np.int32)], f'{name}.shifted')
            products['all'] = builder.node('Add', [shifted, products['low']], f'{name}.products')
        bias = builder.constant(node.bias.reshape(1, -1, 1, 1), np.int32, f'{name}.bias')
        sums = builder.node('Add', [products['all'], bias], f'{name}.sums')
        return builder.node('Cast', [sums], f'{name}.float', to=types.FLOAT)

    def _conv(self, node: Conv, weight: np.ndarray, scale: str, bias: str | None, name: str) -> str:
        source, attributes = self._source(node, name)
        codes = self.dequantized_tensor(source, node.inputs[0], name)
        stored = self.builder.constant(weight, np.int8, f'{node.weight}.weight')
        real = self.builder.node('DequantizeLinear', [stored, scale], f'{name}.weight', axis=0)
        inputs = [codes, real, *([bias] if bias else [])]
        return self.builder.node('Conv', inputs, name, **attributes)

    def _source(self, node: Conv, name: str) -> tuple[str, dict[str, Any]]:
        """The stored codes that a conv reads, and its attributes.

        OpenVINO moves the stride of a 1 x 1 conv up to what computes its input, and then runs the
        conv in float; so the codes that it reads are picked before.
        """
        source, pads = self.padded(node, name)
        attributes = geometry(node, pads)
        kernel = self.graph.weights[node.weight].shape[2:]
        if kernel != (1, 1) or node.stride == (1, 1) or any(pads):
            return source, attributes
        picked = self.builder.node(
            'MaxPool', [source], f'{name}.picked', kernel_shape=(1, 1), strides=node.stride)
        return picked, {**attributes, 'strides': (1, 1)}

    def _scale(self, node: Conv, value: float) -> str:
        return self.builder.constant(np.full(len(node.bias), value), np.float32)

    def _largest_products(self, node: Conv) -> int:
        """Largest sum of products without the bias, as the kernel sees it."""
        magnitude = np.abs(self.graph.weights[node.weight].astype(np.int64)).sum((1, 2, 3)).max()
        return int(magnitude) * self.graph.edges[node.inputs[0]].magnitude


def _halves(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h and l of w = 16 h + l, l in -8..7."""
    high = (weight.astype(np.int16) + _HALF // 2) >> 4
    return high, weight - _HALF * high
