"""What was really quantized, read off the model."""
from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn as nn
from terminaltables import AsciiTable
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from mmaqd.layers import QuantLayer, QuantMultiheadAttention
from mmaqd.quantizers.rules import has_weights, weight_of

_FLOAT_BITS = 32
_IMAGE_BITS = 8


@dataclass(frozen=True)
class LayerQuantization:
    """One module with weights, as it is.

    Attributes:
        module: Name in the model.
        weight_bits: Bits of a weight, 32 for float.
        input_bits: Bits of an input value, 32 for float, 8 for the image: it comes as uint8
            integers, so nothing quantizes it.
        granularity: ``'per_tensor'`` or ``'per_channel'`` of the weights, None for float.
        weight_quantizer: Class name, None for float.
        input_quantizer: Class name, None for float and for the image.
        num_weights: Number of weights, without the bias: of all parameters of the module itself
            with two or more dimensions.
    """

    module: str
    weight_bits: int
    input_bits: int
    granularity: str | None
    weight_quantizer: str | None
    input_quantizer: str | None
    num_weights: int


def quantization_table(model: nn.Module) -> list[LayerQuantization]:
    """One row for every module with a parameter of two or more dimensions, and every projection.

    They come in module order, and the first of them takes the image. A module that multiplies by
    such parameters in another way than by a quantized weight is listed in float: attention,
    queries, tables of positions, ...
    """
    rows = [
        _row(name, module) for name, module in model.named_modules()
        if has_weights(module) and not isinstance(module, ParametrizationList)
        and not (isinstance(module, QuantMultiheadAttention) and not _num_weights(module))
    ]
    if rows and rows[0].weight_quantizer and not rows[0].input_quantizer:
        if _image_is_integer(model):
            rows[0] = replace(rows[0], input_bits=_IMAGE_BITS)
    return rows


def format_table(rows: list[LayerQuantization]) -> str:
    """``rows`` as text."""
    header = ['module', 'weight bits', 'input bits', 'granularity', 'weights']
    lines = [[
        row.module, row.weight_bits,
        _input_text(row), row.granularity or '-', row.num_weights
    ] for row in rows]
    return AsciiTable([header, *lines]).table


def _input_text(row: LayerQuantization) -> str:
    is_image = row.input_quantizer is None and row.input_bits == _IMAGE_BITS
    return f'{row.input_bits}{" (image)" if is_image else ""}'


def _image_is_integer(model: nn.Module) -> bool:
    """Whether images enter as integers: the preprocessor takes an integer mean away, or nothing."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if not getattr(preprocessor, '_enable_normalize', False):
        return preprocessor is not None
    mean, std = preprocessor.mean, preprocessor.std
    # On the meta device nobody knows.
    return not mean.is_meta and bool((mean == mean.round()).all()) and bool((std == 1).all())


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
