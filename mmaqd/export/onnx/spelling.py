"""Nodes of an integer graph in operators of ONNX: what both engines share."""
from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from mmaqd.export.graph import (Add, Apply, Codes, Conv, FloatConv, IntegerGraph, MaxPool, Node,
                                Quantize, Requantization, Requantize, Upsample, saturates_int16)

from .builder import Builder

_LARGEST = 255


def geometry(node: Conv, pads: Sequence[int]) -> dict[str, Any]:
    """Attributes of a conv."""
    return dict(strides=node.stride, pads=pads, dilations=node.dilation, group=node.groups)


class Speller:
    """Adds the operators that compute nodes to a model.

    Codes are stored as uint8; those that can be negative with :meth:`zero` added.

    Args:
        builder: The model in the making.
        graph: The integers.
        tensors: Names of the tensors of the edges so far.
        packed: Whether weights are stored in fewer than 8 bits.
        vnni: Whether int8 kernels add products in 32 bits.
    """

    code_type: type = np.uint8

    def __init__(self, builder: Builder, graph: IntegerGraph, tensors: dict[str, str], packed: bool,
                 vnni: bool) -> None:
        self.builder = builder
        self.graph = graph
        self.tensors = tensors
        self.packed = packed
        self.vnni = vnni

    def spell(self, node: Node, name: str) -> str:
        """Add a node; returns the name of its tensor, ``name`` if that is free."""
        spellings: dict[type, Callable[[Node, str], str]] = {
            Conv: self.conv,
            FloatConv: self.float_conv,
            Quantize: self.quantize,
            Requantize: self.requantize,
            Add: self.add,
            MaxPool: self.max_pool,
            Upsample: self.upsample,
            Apply: self.apply,
        }
        return spellings[type(node)](node, name)

    def conv(self, node: Conv, name: str) -> str:
        """A conv, to codes or real numbers."""
        spelling = self.conv_to_real if node.requantization is None else self.conv_to_codes
        return spelling(node, name)

    def conv_to_codes(self, node: Conv, name: str) -> str:
        """A conv whose sums are requantized."""
        raise NotImplementedError

    def conv_to_real(self, node: Conv, name: str) -> str:
        """A conv whose sums are scaled to real numbers."""
        raise NotImplementedError

    def requantize(self, node: Requantize, name: str) -> str:
        """Codes of another unit."""
        real = self.dequantized(node.inputs[0], name)
        if node.bias:
            bias = self.builder.constant(node.bias, np.float32)
            real = self.builder.node('Add', [real, bias], f'{name}.shifted')
        factor = self.builder.constant(node.requantization.factor[0], np.float32)
        real = self.builder.node('Mul', [real, factor], f'{name}.scaled')
        return self.quantized(real, node.output, name)

    def float_conv(self, node: FloatConv, name: str) -> str:
        """A conv that was left in float."""
        builder, source = self.builder, node.inputs[0]
        real = self.tensors[source]
        if isinstance(self.graph.edges[source], Codes):
            real = builder.node('Cast', [real], f'{name}.real', to=builder.onnx.TensorProto.FLOAT)
        real, pads = self._padded(real, node.padding, node.pad.astype(np.float32), name)
        inputs = [
            real,
            builder.constant(self.graph.weights[node.weight], np.float32, f'{node.weight}.weight'),
            builder.constant(node.bias, np.float32, f'{name}.bias')
        ]
        if not node.rectified:
            return builder.node('Conv', inputs, name, **geometry(node, pads))
        sums = builder.node('Conv', inputs, f'{name}.sums', **geometry(node, pads))
        return builder.node('Relu', [sums], name)

    def quantize(self, node: Quantize, name: str) -> str:
        """Real numbers to codes."""
        edge, real = self.graph.edges[node.output], self.tensors[node.inputs[0]]
        if edge.offset:
            offset = self.scalar(edge.offset, np.float32)
            real = self.builder.node('Sub', [real, offset], f'{name}.centred')
        unit = self.scalar(edge.unit, np.float32)
        real = self.builder.node('Div', [real, unit], f'{name}.scaled')
        return self.quantized(real, edge.name, name)

    def add(self, node: Add, name: str) -> str:
        """A sum of codes."""
        operands = [self.dequantized(each, f'{name}.{side}')
                    for each, side in zip(node.inputs, 'ab')]  # yapf: disable
        sums = self.builder.node('Add', operands, f'{name}.sum')
        return self.quantized_integers(sums, node.output, name)

    def max_pool(self, node: MaxPool, name: str) -> str:
        """Largest codes of windows."""
        reach = min(k - p - s for k, p, s in zip(node.kernel, node.padding, node.stride))
        if node.ceil_mode and reach < 0:
            raise ValueError(f'{node.name}: with ceil_mode, a kernel of {node.kernel}, a stride of '
                             f'{node.stride} and a padding of {node.padding} engines have another '
                             'size than torch. Set ceil_mode=False.')
        return self.builder.node(
            'MaxPool', [self.tensors[node.inputs[0]]],
            name,
            kernel_shape=node.kernel,
            strides=node.stride,
            pads=node.padding * 2,
            dilations=node.dilation,
            ceil_mode=int(node.ceil_mode))

    def upsample(self, node: Upsample, name: str) -> str:
        """Nearest neighbours."""
        source = self.tensors[node.inputs[0]]
        nearest = dict(
            mode='nearest', coordinate_transformation_mode='asymmetric', nearest_mode='floor')
        if node.factor is not None:
            scales = self.builder.constant([1, 1, *node.factor], np.float32)
            return self.builder.node('Resize', [source, '', scales], name, **nearest)
        return self.builder.node('Resize', [source, '', '', self.sizes(node, name)], name,
                                 **nearest)

    def sizes(self, node: Upsample, name: str) -> str:
        """The shape to upsample to: that of the second input, but for the channels."""
        source, like = (self.tensors[each] for each in node.inputs)
        kept = self.builder.node('Shape', [source], f'{name}.batch', start=0, end=2)
        size = self.builder.node('Shape', [like], f'{name}.size', start=2, end=4)
        return self.builder.node('Concat', [kept, size], f'{name}.sizes', axis=0)

    def apply(self, node: Apply, name: str) -> str:
        """A function of real numbers, or the real values of codes."""
        edge = self.graph.edges[node.inputs[0]]
        if not isinstance(edge, Codes):
            operator = {'exp': 'Exp', 'sigmoid': 'Sigmoid'}[node.function]
            return self.builder.node(operator, [self.tensors[node.inputs[0]]], name)
        codes = self.dequantized(edge.name, name)
        unit = self.builder.constant(edge.unit, np.float32)
        if not edge.offset:
            return self.builder.node('Mul', [codes, unit], name)
        real = self.builder.node('Mul', [codes, unit], f'{name}.scaled')
        return self.builder.node('Add', [real, self.builder.constant(edge.offset, np.float32)],
                                 name)

    def saturates(self, node: Conv) -> bool:
        """Whether int8 kernels could saturate, so that it is spelled otherwise."""
        return not self.vnni and saturates_int16(self.graph, node)

    def channels(self, edge: str) -> int:
        """Number of channels of an edge."""
        nodes = {node.output: node for node in self.graph.nodes}
        node = nodes[edge]
        while not isinstance(node, (Conv, FloatConv)):
            node = nodes[node.inputs[0]]
        return len(node.bias)

    def zero(self, edge: str) -> int:
        """What is stored for the code 0."""
        return -min(self.graph.edges[edge].qmin, 0)

    def dequantized(self, edge: str, name: str) -> str:
        """The codes of an edge as float32; each reader has a DequantizeLinear of its own."""
        return self.dequantized_tensor(self.tensors[edge], edge, name)

    def dequantized_tensor(self, tensor: str, edge: str, name: str) -> str:
        """A tensor stored like an edge as float32 numbers."""
        return self.builder.node('DequantizeLinear',
                                 [tensor, self.one(), self.zero_point(edge)], f'{name}.codes')

    def quantized(self, real: str, edge: str, name: str) -> str:
        """Float32 numbers rounded and clipped to the codes of an edge."""
        return self.quantized_integers(real, edge, name)

    def quantized_integers(self, integers: str, edge: str, name: str) -> str:
        """Float32 numbers that are integers clipped to the codes of an edge."""
        inputs = [integers, self.one(), self.zero_point(edge)]
        stored = self.builder.node('QuantizeLinear', inputs, self.unclipped(edge, name))
        return self.clipped(stored, edge, name)

    def unclipped(self, edge: str, name: str) -> str:
        """Name of the stored codes of an edge before :meth:`clipped`."""
        return name if self._stored_range(edge) == (0, _LARGEST) else f'{name}.saturated'

    def clipped(self, stored: str, edge: str, name: str) -> str:
        """Stored codes within the range of an edge.

        It is the uint8 tensor that is clipped: behind a float Clip engines run convs in float.
        """
        low, high = self._stored_range(edge)
        if (low, high) == (0, _LARGEST):
            return stored
        bounds = [self.builder.constant(each, np.uint8) for each in (low, high)]
        return self.builder.node('Clip', [stored, *bounds], name)

    def padded(self, node: Conv, name: str) -> tuple[str, Sequence[int]]:
        """The stored codes that a conv reads, and the zeros that it pads them with itself."""
        source = node.inputs[0]
        stored = node.pad_codes + (self.zero(source) if node.pad_codes.any() else 0)
        return self._padded(self.tensors[source], node.padding, stored.astype(self.code_type), name)

    def weight(self, key: str, dtype: type, zero: int) -> str:
        """The weights of a key, stored once for each type and zero point."""
        codes = self.graph.weights[key].astype(np.int16) + zero
        return self.builder.constant(codes, dtype, f'{key}.weight')

    def scaled(self, products: str, node: Conv, name: str) -> str:
        """int32 sums of products to real numbers: the bias is added in integers."""
        builder = self.builder
        shape = (1, -1, 1, 1)
        bias = builder.constant(node.bias.reshape(shape), np.int32, f'{name}.bias')
        scale = builder.constant(node.scale.reshape(shape), np.float32, f'{name}.scale')
        sums = builder.node('Add', [products, bias], f'{name}.sums')
        real = builder.node('Cast', [sums], f'{name}.float', to=self.builder.onnx.TensorProto.FLOAT)
        if not node.rectified:
            return builder.node('Mul', [real, scale], name)
        return builder.node('Relu', [builder.node('Mul', [real, scale], f'{name}.scaled')], name)

    def scalar(self, value: float, dtype: type) -> str:
        """A constant without axes."""
        return self.builder.constant(value, dtype)

    def one(self) -> str:
        """The scale of codes."""
        return self.scalar(1, np.float32)

    def factors(self, requantization: Requantization, channels: int) -> np.ndarray:
        """M / 2^k of each channel, float32, which holds it exactly."""
        return np.broadcast_to(requantization.factor, (channels, )).astype(np.float32)

    def zero_point(self, edge: str) -> str:
        return self.scalar(self.zero(edge), np.uint8)

    def _stored_range(self, edge: str) -> tuple[int, int]:
        codes, zero = self.graph.edges[edge], self.zero(edge)
        return codes.qmin + zero, codes.qmax + zero

    def _padded(self, source: str, padding: tuple[int, int], pad: np.ndarray,
                name: str) -> tuple[str, Sequence[int]]:
        """A tensor padded by a number for each channel, and the zeros that are left to pad."""
        height, width = padding
        if not pad.any() or not any(padding):
            return source, (height, width, height, width)
        pads = self.builder.constant([0, 0, height, width] * 2, np.int64)
        if (pad == pad[0]).all():
            return self._pad(source, pads, pad[0], f'{name}.padded'), (0, 0, 0, 0)
        channels = self.builder.node_with_outputs(
            'Split', [source], [f'{name}.channel{i}' for i in range(len(pad))],
            axis=1,
            num_outputs=len(pad) if self.builder.opset >= 18 else None)
        padded = [self._pad(channel, pads, value, f'{channel}.padded')
                  for channel, value in zip(channels, pad)]  # yapf: disable
        return self.builder.node('Concat', padded, f'{name}.padded', axis=1), (0, 0, 0, 0)

    def _pad(self, source: str, pads: str, value: np.generic, name: str) -> str:
        inputs = [source, pads, self.builder.constant(value, value.dtype)]
        return self.builder.node('Pad', inputs, name)
