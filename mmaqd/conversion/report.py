"""What was really quantized, read off the model."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch.nn as nn
from terminaltables import AsciiTable
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from mmaqd.layers import QuantLayer, QuantMultiheadAttention
from mmaqd.quantizers.rules import has_weights, weight_of

_FLOAT_BITS = 32


@dataclass(frozen=True)
class LayerQuantization:
    """One module with weights, as it is.

    Attributes:
        module: Name in the model.
        weight_bits: Bits of a weight, 32 for float.
        input_bits: Bits of an input value, 32 for float.
        granularity: ``'per_tensor'`` or ``'per_channel'`` of the weights, None for float.
        weight_quantizer: Class name, None for float.
        input_quantizer: Class name, None for float.
        num_weights: Number of weights, without the bias: of all parameters of the module itself
            with two or more dimensions.
    """

    module: str
    weight_bits: int
    input_bits: int
    granularity: Optional[str]
    weight_quantizer: Optional[str]
    input_quantizer: Optional[str]
    num_weights: int


def quantization_table(model: nn.Module) -> list[LayerQuantization]:
    """One row for every module with a parameter of two or more dimensions, and every projection.

    They come in module order. A module that multiplies by such parameters in another way than by a
    quantized weight is listed in float: attention, queries, tables of positions, ...
    """
    return [
        _row(name, module) for name, module in model.named_modules()
        if has_weights(module) and not isinstance(module, ParametrizationList)
        and not (isinstance(module, QuantMultiheadAttention) and not _num_weights(module))
    ]


def format_table(rows: list[LayerQuantization]) -> str:
    """``rows`` as text."""
    header = ['module', 'weight bits', 'input bits', 'granularity', 'weights']
    lines = [[row.module, row.weight_bits, row.input_bits, row.granularity or '-', row.num_weights]
             for row in rows]
    return AsciiTable([header, *lines]).table


def _row(name: str, module: nn.Module) -> LayerQuantization:
    weight = inputs = None
    if isinstance(module, QuantLayer):
        weight, inputs = module.weight_quantizer, module.input_quantizer
    return LayerQuantization(
        module=name,
        weight_bits=weight.bit_width if weight is not None else _FLOAT_BITS,
        input_bits=inputs.bit_width if inputs is not None else _FLOAT_BITS,
        granularity=weight.granularity if weight is not None else None,
        weight_quantizer=type(weight).__name__ if weight is not None else None,
        input_quantizer=type(inputs).__name__ if inputs is not None else None,
        num_weights=_num_weights(module))


def _num_weights(module: nn.Module) -> int:
    own = [
        each for name, each in module._parameters.items()
        if each is not None and not is_lazy(each) and each.dim() >= 2
        and not (isinstance(module, QuantMultiheadAttention) and module.is_projected(name))
    ]
    if own:
        return sum(each.numel() for each in own)
    computed = weight_of(module)  # from the parameters of another module
    return 0 if computed is None or is_lazy(computed) else computed.numel()
