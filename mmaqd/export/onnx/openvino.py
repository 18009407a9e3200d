"""The operators that OpenVINO runs on integer kernels."""
from __future__ import annotations

import numpy as np

from ..graph import Conv
from .spelling import Speller


class OpenVinoSpeller(Speller):
    """Convs between DequantizeLinear and QuantizeLinear."""

    def conv_to_codes(self, node: Conv, name: str) -> str:
        builder = self.builder
        source, pads = self.padded(node, name)
        codes = self.dequantized_tensor(source, node.inputs[0], name)
        factors = builder.constant(
            self.factors(node.requantization, len(node.bias)), name=f'{name}.factors')
        weight = builder.node(
            'DequantizeLinear', [self.weight(node.weight, np.int8, 0), factors],
            f'{name}.weight',
            axis=0)
        bias = builder.node(
            'DequantizeLinear',
            [builder.constant(node.bias, np.int32, f'{name}.bias.codes'), factors],
            f'{name}.bias',
            axis=0)
        sums = builder.node(
            'Conv', [codes, weight, bias],
            f'{name}.sums',
            strides=node.stride,
            pads=pads,
            dilations=node.dilation,
            group=node.groups)
        return self.quantized(sums, node.output, name)

    def conv_to_real(self, node: Conv, name: str) -> str:
        raise NotImplementedError
