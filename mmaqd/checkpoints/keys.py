"""What the keys of a state tell: which quantizers it has, and what one level has for all."""
from __future__ import annotations

import re
from typing import Any, Mapping

import torch.nn as nn

from mmaqd.layers import MultiLevelModule
from mmaqd.quantizers import STORED_SCALE, PackedWeightsError, Quantizer

_BITS = re.compile(r'(.*_quantizer(?:\.\d+)?)\.bits')


def quantizer_names(state: Mapping[str, Any]) -> list[str]:
    """Names of the quantizers that a state holds; none in that of a float model."""
    return [match.group(1) for match in map(_BITS.fullmatch, state) if match]


def forget_stored_codes(state: dict) -> int:
    """Let weights that are stored codes be weights that are trained, in place.

    Returns:
        Number of layers.
    """
    keys = [key for key in state if key.endswith(f'.weight_quantizer.{STORED_SCALE}')]
    for key in keys:
        del state[key]
    return len(keys)


def refuse_stored_codes(state: Mapping[str, Any]) -> None:
    """Raise a :class:`PackedWeightsError` if weights of a state are stored codes."""
    packed = forget_stored_codes(dict(state))
    if packed:
        raise PackedWeightsError(
            f'The weights of {packed} layers come from a packed file, which holds their codes and '
            'not the float weights that training goes on from. Train from the checkpoint that was '
            "packed, or add dict(type='mmaqd.TrainPackedHook') to custom_hooks to start from the "
            'grid points.')


def quantizers_of(module: nn.Module) -> dict[str, Quantizer]:
    """The quantizers of a model by their names; those of a shared layer stand under each of its."""
    return {
        name: each
        for name, each in module.named_modules(remove_duplicate=False)
        if isinstance(each, Quantizer)
    }


def spread_levels(module: nn.Module, state: dict) -> None:
    """Give every pyramid level what a state has once for all levels, in place."""
    for name, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, MultiLevelModule):
            layer.spread(state, f'{name}.' if name else '')
