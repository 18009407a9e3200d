"""What the keys of a state tell: which quantizers it has, and what one level has for all."""
from __future__ import annotations

import re
from typing import Any, Mapping

import torch.nn as nn

from mmaqd.layers import MultiLevelModule

_BITS = re.compile(r'(.*_quantizer(?:\.\d+)?)\.bits')


def quantizer_names(state: Mapping[str, Any]) -> list[str]:
    """Names of the quantizers that a state holds; none in that of a float model."""
    return [match.group(1) for match in map(_BITS.fullmatch, state) if match]


def spread_levels(module: nn.Module, state: dict) -> None:
    """Give every pyramid level what a state has once for all levels, in place."""
    for name, layer in module.named_modules():
        if isinstance(layer, MultiLevelModule):
            layer.spread(state, f'{name}.' if name else '')
