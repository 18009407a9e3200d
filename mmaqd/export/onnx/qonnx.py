"""Integer graphs as QONNX, for FPGA tools: integers in float tensors between IntQuant operators."""
from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

import numpy as np

from mmaqd.export.graph import Conv, IntegerGraph, Upsample

from .builder import Builder
from .packed import grid
from .spelling import Speller, geometry
from .writer import KINDS, image_channels, prediction_names, to_onnx

if TYPE_CHECKING:
    import onnx

_DOMAIN = 'qonnx.custom_op.general'


def to_qonnx(graph: IntegerGraph,
             height: int,
             width: int,
             batch: int = 1,
             *,
             kinds: Sequence[str] = KINDS) -> onnx.ModelProto:
    """An integer graph as a QONNX model; the tensors of its edges hold the twin's codes.

    Units are 1: an IntQuant has the scale 1, that of a weight the step of its codes, with half a
    zero point on odd grids. Its input is ``input``, float32 integers 0..255.

    Args:
        graph: The integers.
        height: Of the image.
        width: Of the image.
        batch: Number of images.
        kinds: Names of the kinds of predictions.

    Raises:
        ValueError: An edge has more than 8 bits.
        MissingPackage: The package onnx is not installed.
    """
    shapes = _shapes(graph, height, width, batch, kinds)
    builder = Builder()
    builder.domains[_DOMAIN] = 1
    shape = [batch, image_channels(graph), height, width]
    tensors = {graph.image.name: builder.input(graph.image.name, np.float32, shape)}
    speller = QonnxSpeller(builder, graph, tensors, shapes)
    renamed = prediction_names(graph, kinds)
    for node in graph.nodes:
        tensors[node.output] = speller.spell(node, renamed.get(node.output, node.output))
    return builder.model([tensors[name] for kind in graph.outputs for name in kind], shapes=shapes)


class QonnxSpeller(Speller):
    """Every edge of codes is a float32 tensor of integers behind an IntQuant."""

    code_type = np.float32

    def __init__(self, builder: Builder, graph: IntegerGraph, tensors: dict[str, str],
                 shapes: dict[str, list[int]]) -> None:
        super().__init__(builder, graph, tensors, packed=False, vnni=False)
        self.shapes = shapes

    def zero(self, edge: str) -> int:
        return 0

    def dequantized_tensor(self, tensor: str, edge: str, name: str) -> str:
        return tensor

    def quantized_integers(self, integers: str, edge: str, name: str) -> str:
        codes = self.graph.edges[edge]
        signed = codes.qmin < 0
        bits = max(int(codes.qmax).bit_length(),
                   int(-codes.qmin - 1).bit_length() * signed) + signed
        held = (-2**(bits - 1) * signed, 2**(bits - signed) - 1)
        exact = held == (codes.qmin, codes.qmax)
        stored = self._int_quant(integers, 1, 0, bits, signed, name if exact else f'{name}.held')
        if exact:
            return stored
        bounds = [self.scalar(each, np.float32) for each in (codes.qmin, codes.qmax)]
        return self.builder.node('Clip', [stored, *bounds], name)

    def conv_to_codes(self, node: Conv, name: str) -> str:
        factors = self.factors(node.requantization, len(node.bias))
        return self.quantized(self._scaled(node, factors, name), node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        if not node.rectified:
            return self._scaled(node, node.scale, name, name)
        return self.builder.node('Relu', [self._scaled(node, node.scale, name)], name)

    def sizes(self, node: Upsample, name: str) -> str:
        return self.builder.constant(self.shapes[node.output], np.int64)

    def _scaled(self, node: Conv, scale: np.ndarray, name: str, output: str = '') -> str:
        builder = self.builder
        codes, pads = self.padded(node, name)
        bias = builder.constant(node.bias, np.float32, f'{name}.bias')
        sums = builder.node('Conv', [codes, self._weight(node), bias], f'{name}.sums',
                            **geometry(node, pads))
        factors = builder.constant(scale.reshape(1, -1, 1, 1), np.float32, f'{name}.scale')
        return builder.node('Mul', [sums, factors], output or f'{name}.scaled')

    def _weight(self, node: Conv) -> str:
        weight = self.graph.weights[node.weight]
        found = grid(weight)
        codes = self.builder.constant(weight, np.float32, f'{node.weight}.codes')
        return self._int_quant(codes, found.step, -found.lowest / found.step, found.bits, False,
                               f'{node.weight}.weight')

    def _int_quant(self, source: str, scale: float, zero: float, bits: int, signed: bool,
                   name: str) -> str:
        inputs = [source, *(self.scalar(each, np.float32) for each in (scale, zero, bits))]
        return self.builder.node(
            'IntQuant', inputs, name, _DOMAIN, signed=int(signed), narrow=0, rounding_mode='ROUND')


def _shapes(graph: IntegerGraph, height: int, width: int, batch: int,
            kinds: Sequence[str]) -> dict[str, list[int]]:
    """Shapes of all tensors, which are not inferred through operators of another domain."""
    model = to_onnx(graph, height, width, batch, kinds=kinds)
    return {each.name: [side.dim_value for side in each.type.tensor_type.shape.dim]
            for each in (*model.graph.output, *model.graph.value_info)}  # yapf: disable
