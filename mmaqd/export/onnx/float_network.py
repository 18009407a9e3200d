"""The float twin as ONNX, by the road of the integers: the network that files are compared with."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from mmaqd.export.capture import Captured
from mmaqd.export.rules import Reader, UnsupportedOperator
from mmaqd.export.storage import ordered
from mmaqd.export.values import Applied, ConvValue, Image, Pooled, Sum, Upsampled, Value

from .builder import Builder


def add_float_network(builder: Builder, captured: Captured, mean: np.ndarray,
                      image: str) -> tuple[tuple[str, ...], ...]:
    """Add the nodes of a captured float detector, BN folded into the convs.

    Args:
        builder: The model in the making.
        captured: The operators of a detector without quantizers.
        mean: What the data preprocessor subtracts, (C,).
        image: Name of the tensor of the image, uint8 (N, C, H, W) of the size that was captured.

    Returns:
        Names of the prediction maps, float32; one tuple over the levels for each kind.

    Raises:
        UnsupportedOperator: The detector is quantized, or computes something that has no form here.
    """
    reader = Reader(captured, mean, allow_float=True)
    reader.read()
    results = [tuple(reader.values[node] for node in kind) for kind in captured.outputs]
    speller = _Speller(builder, mean, image)
    for value in ordered([each for kind in results for each in kind]):
        speller.spell(value)
    return tuple(tuple(speller.names[value] for value in kind) for kind in results)


class _Speller:

    def __init__(self, builder: Builder, mean: np.ndarray, image: str) -> None:
        self.builder = builder
        self.mean = mean
        self.image = image
        self.names: dict[Value, str] = {}

    def spell(self, value: Value) -> None:
        name = {
            Image: self._image,
            ConvValue: self._conv,
            Sum: self._sum,
            Pooled: self._pooled,
            Upsampled: self._upsampled,
            Applied: self._applied,
        }[type(value)](
            value)
        if getattr(value, 'rectified', False):
            name = self.builder.node('Relu', [name], f'{name}.relu')
        self.names[value] = name

    def _image(self, value: Image) -> str:
        real = self.builder.node(
            'Cast', [self.image], 'image.real', to=self.builder.onnx.TensorProto.FLOAT)
        mean = self.builder.constant(self.mean.reshape(1, -1, 1, 1), np.float32)
        return self.builder.node('Sub', [real, mean], 'image.normalized')

    def _conv(self, value: ConvValue) -> str:
        if not value.in_float:
            raise UnsupportedOperator(f'{value.layer} is quantized: --float takes the config and '
                                      'the checkpoint of the float twin.')
        stride, padding, dilation, groups = value.geometry
        weight = value.codes * value.factor.reshape(-1, 1, 1, 1)
        inputs = [
            self.names[value.source],
            self.builder.constant(weight, np.float32, f'{value.layer}.weight'),
            self.builder.constant(value.offset, np.float32, f'{value.layer}.bias')
        ]
        return self.builder.node(
            'Conv', inputs, value.name, strides=stride, pads=_both(padding), dilations=dilation,
            group=groups)  # yapf: disable

    def _sum(self, value: Sum) -> str:
        return self.builder.node('Add', [self.names[each] for each in value.operands], value.name)

    def _pooled(self, value: Pooled) -> str:
        geometry = value.geometry
        return self.builder.node(
            'MaxPool', [self.names[value.source]],
            value.name,
            kernel_shape=geometry['kernel'],
            strides=geometry['stride'],
            pads=_both(geometry['padding']),
            dilations=geometry['dilation'],
            ceil_mode=int(geometry['ceil_mode']))

    def _upsampled(self, value: Upsampled) -> str:
        factors = [to / side for side, to in zip(*value.sizes)]
        scales = self.builder.constant([1.0, 1.0, *factors], np.float32)
        return self.builder.node(
            'Resize', [self.names[value.source], '', scales],
            value.name,
            mode='nearest',
            coordinate_transformation_mode='asymmetric',
            nearest_mode='floor')

    def _applied(self, value: Applied) -> str:
        return self.builder.node(value.function.capitalize(), [self.names[value.source]],
                                 value.name)


def _both(padding: Sequence[int]) -> list[int]:
    return [*padding, *padding]
