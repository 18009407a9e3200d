"""torch's attention on the way to a quantized one, projection by projection."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Collection

import torch.nn as nn

from mmaqd.layers import PROJECTIONS, QuantLayer, QuantMultiheadAttention

from .convertible import is_attention


@dataclass(frozen=True)
class Projection:
    """A projection of an attention, whose weight is a part of the attention's parameters.

    Attributes:
        attention: The attention, in float.
        name: Which projection, one of :data:`mmaqd.layers.PROJECTIONS`.
    """

    attention: nn.MultiheadAttention
    name: str

    @classmethod
    def all_of(cls, attention: nn.MultiheadAttention, prefix: str) -> dict[str, Projection]:
        """The projections by their names in a model in which the attention's is ``prefix``."""
        return {
            '.'.join(filter(None, (prefix, name))): cls(attention, name)
            for name in PROJECTIONS
        }


def quantized_attentions(model: nn.Module,
                         targets: Collection[object]) -> dict[nn.Module, QuantMultiheadAttention]:
    """A twin for each attention that has a quantized part, with its projections still in float.

    Args:
        model: The float model.
        targets: Projections and modules that will be quantized. Where an ``out_proj`` is among
            them, torch's own attention would read its weight without calling it.
    """
    return {
        module: QuantMultiheadAttention.from_float(module)
        for module in model.modules() if is_attention(module) and any(
            part in targets for part in (module.out_proj, *Projection.all_of(module, '').values()))
    }


def keep_torch_from_reading(model: nn.Module) -> None:
    """Turn off the fast path of torch's encoder layers that hold quantized layers.

    In evaluation it takes all weights of the layer, in float, and calls nothing.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            if any(isinstance(each, QuantLayer) for each in module.modules()):
                module.activation_relu_or_gelu = 0  # as an activation the fast path doesn't know
