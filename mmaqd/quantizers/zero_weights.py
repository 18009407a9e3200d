"""Weights that are zero, where the codes have no zero."""
from __future__ import annotations

from typing import Collection

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from .base import Quantizer
from .patterns import patterns_for
from .rules import has_weights, module_names, rule_lines

# What is at most this large is as good as zero; the least interval is a little larger.
_TINY = 1e-5
# Trained weights are hardly ever exactly zero, so that a percent has been pruned.
_WORTH_SAYING = 0.01
_WARNING = 30


@torch.no_grad()
def check_zero_weights(model: nn.Module, quantizers: Collection[Quantizer]) -> None:
    """Refuse layers whose weights are all zero and are not once quantized; warn of pruned ones.

    Args:
        model: The model.
        quantizers: Those to look at, initialized.

    Raises:
        ValueError: There are such layers.
    """
    alive = {
        layer:
        _share_alive(getattr(layer, 'channels_first_weight', layer.weight), layer.weight_quantizer)
        for layer in model.modules() if getattr(layer, 'weight_quantizer', None) in quantizers
        and isinstance(getattr(layer, 'weight', None), Tensor)
    }
    dead = [layer for layer, share in alive.items() if share == 1]
    pruned = {layer: share for layer, share in alive.items() if _WORTH_SAYING <= share < 1}
    names = module_names(model)
    if dead:
        raise ValueError(
            f'{names[dead[0]]}: all its weights are zero, but its quantizer, of '
            f'{dead[0].weight_quantizer.bit_width} bits, has no zero among its values, so '
            f'that they would come out as others{_others(dead)}. Leave such weights in float, or '
            f'give them a quantizer with a zero: {_rules(model, dead)}')
    if pruned:
        layer, share = next(iter(pruned.items()))
        print_log(
            f'{names[layer]}: {share:.0%} of its weights are exactly zero, as in a pruned model, '
            f'and do not stay so, since its quantizer has no zero{_others(pruned)}. If they '
            f'should: {_rules(model, pruned)}',
            'current',
            level=_WARNING)


def _share_alive(weight: Tensor, quantizer: Quantizer) -> float:
    """Share of the weights that are zero and are not once quantized."""
    zero = weight == 0
    if not zero.any():
        return 0.0
    return float((zero & (quantizer(weight).abs() > _TINY)).double().mean())


def _others(layers: Collection[nn.Module]) -> str:
    return f' (so it is with {len(layers) - 1} others)' if len(layers) > 1 else ''


def _rules(model: nn.Module, layers: Collection[nn.Module]) -> str:
    names = module_names(model)
    weighted = [names[module] for module in model.modules() if has_weights(module)]
    changes: dict[int, list[str]] = {}
    for layer in layers:
        changes.setdefault(layer.weight_quantizer.bit_width, []).append(names[layer])
    return rule_lines((pattern, f"weight_quantizer=dict(type='mmaqd.LSQWeightQuantizer', "
                       f'bit_width={bits})') for bits, owners in changes.items()
                      for pattern in patterns_for(owners, weighted))
