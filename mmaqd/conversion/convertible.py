"""Which layers have a quantized twin, and why the others have none."""
from __future__ import annotations

import torch.nn as nn
from mmcv.cnn.bricks import wrappers
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops import (DeformConv2d, DeformConv2dPack, ModulatedDeformConv2d,
                      ModulatedDeformConv2dPack)
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mmaqd.layers import (QuantConv2d, QuantConv2dAdaptivePadding, QuantConvTranspose2d,
                          QuantDeformConv2d, QuantDeformConv2dPack, QuantLayer, QuantLinear,
                          QuantModulatedDeformConv2d, QuantModulatedDeformConv2dPack)

#: The quantized twin of each type of layer. A derived type may compute something else.
TWINS: dict[type, type[QuantLayer]] = {
    nn.Conv2d: QuantConv2d,
    wrappers.Conv2d: QuantConv2d,
    Conv2dAdaptivePadding: QuantConv2dAdaptivePadding,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    wrappers.ConvTranspose2d: QuantConvTranspose2d,
    nn.Linear: QuantLinear,
    wrappers.Linear: QuantLinear,
    NonDynamicallyQuantizableLinear: QuantLinear,
    DeformConv2d: QuantDeformConv2d,
    DeformConv2dPack: QuantDeformConv2dPack,
    ModulatedDeformConv2d: QuantModulatedDeformConv2d,
    ModulatedDeformConv2dPack: QuantModulatedDeformConv2dPack,
}

# What these classes, and those derived from them, compute that no quantized layer does.
_OWN_WAYS = {
    'ConvWS2d': 'it standardizes its weights in every forward pass',
    'ConvAWS2d': 'it standardizes its weights in every forward pass',
    'NormedLinear': 'it normalizes its weights and its input in every forward pass',
    'NormedConv2d': 'it normalizes its weights and its input in every forward pass',
    'SAConv2d': 'it makes two convolutions of one weight and chooses between them',
}


def is_convertible(module: nn.Module) -> bool:
    """Whether a module is of a type that has a quantized twin."""
    return type(module) in TWINS or is_attention(module)


def is_attention(module: object) -> bool:
    """Whether it is torch's attention itself, whose projections are quantized one by one."""
    return type(module) is nn.MultiheadAttention


def why_not(module: nn.Module, readers: dict[nn.Module, str]) -> str | None:
    """Why a module can't be quantized, None if it can.

    Args:
        module: A module with a weight.
        readers: For modules whose weight is read without calling them the class that does it.
    """
    kind = type(module).__name__
    refused = f'{"an" if kind[0] in "AEIOU" else "a"} {kind} can\'t be quantized'
    for cls in type(module).__mro__:
        if cls.__name__ in _OWN_WAYS:
            return f'{refused}: {_OWN_WAYS[cls.__name__]}'
    if not is_convertible(module):
        return (f'{refused}, only Conv2d, ConvTranspose2d, Linear and MultiheadAttention of torch '
                'and deformable convs and Conv2dAdaptivePadding of mmcv can')
    if 'weight' not in module._parameters and not is_attention(module):
        return f'a {kind} whose weight is computed from other parameters can\'t be quantized'
    if module in readers:
        return f'{refused} if its weight is read without calling it, as {readers[module]} does'
    return None
