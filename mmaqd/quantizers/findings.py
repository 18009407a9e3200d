"""What is wrong with the data of a calibration: all of it in one error, with rules to paste."""
from __future__ import annotations

from typing import Collection, Iterable

import torch.nn as nn

from .base import Quantizer
from .patterns import patterns_for
from .roles import ActivationQuantizer
from .rules import TO_FLOAT, has_weights, module_names, rule_lines

_ROLES = ('weight_quantizer', 'input_quantizer')
_SHOWN = 8


def owners_of(model: nn.Module, quantizers: Collection[Quantizer]) -> dict[nn.Module, list]:
    """The layers that any of ``quantizers`` belong to, with these."""
    wanted = set(quantizers)
    found: dict[nn.Module, list] = {}
    for layer in model.modules():
        for role in _ROLES:
            part = getattr(layer, role, None)
            for each in part.modules() if isinstance(part, nn.Module) else ():
                if each in wanted:
                    found.setdefault(layer, []).append(each)
    return found


def describe(model: nn.Module, watched: Collection[Quantizer],
             called: Collection[nn.Module]) -> list[str]:
    """A text for each kind of fault: negative values at unsigned codes, quantizers without data.

    Args:
        model: The model that ran.
        watched: The quantizers that looked at their data.
        called: The layers that were called.
    """
    unreached = unreached_of(model, watched, called)
    signed = [each for each in watched if isinstance(each, ActivationQuantizer) and each.lowest < 0]
    texts = [_about_signed(model, signed)] if signed else []
    return texts + ([_about_unreached(model, unreached)] if unreached else [])


def unreached_of(model: nn.Module, watched: Collection[Quantizer],
                 called: Collection[nn.Module]) -> list[Quantizer]:
    """The quantizers that nothing reached, because their layer was not called or otherwise."""
    owners = owners_of(model, watched)
    asleep = {each for layer, own in owners.items() if layer not in called for each in own}
    return [
        each for each in watched
        if each in asleep or not bool(each.initialized) and not each.has_samples
    ]


def _about_signed(model: nn.Module, signed: list[Quantizer]) -> str:
    owners = owners_of(model, signed)
    rules: dict[str, list[nn.Module]] = {}
    for layer, own in owners.items():
        rules.setdefault(f'input_quantizer={own[0].signed_cfg}', []).append(layer)
    return signed[0].complaint + _others(signed) + _rules(model, rules)


def _about_unreached(model: nn.Module, unreached: list[Quantizer]) -> str:
    layers = owners_of(model, unreached)
    return (f'{unreached[0].name}: no data reached the quantizer while calibrating. Is its layer '
            'used in the forward pass, and called there, not only its weight read? If not, exclude '
            'it by a rule.' + _others(unreached) + _rules(model, {TO_FLOAT: layers}))


def _others(quantizers: list[Quantizer]) -> str:
    names = [each.name for each in quantizers[1:]]
    if not names:
        return ''
    more = f', ... ({len(names)} in all)' if len(names) > _SHOWN else ''
    return f'\nThe same holds for {", ".join(names[:_SHOWN])}{more}.'


def _rules(model: nn.Module, changes: dict[str, Iterable[nn.Module]]) -> str:
    names = module_names(model)
    weighted = [names[module] for module in model.modules() if has_weights(module)]
    lines = [(pattern, change) for change, layers in changes.items()
             for pattern in patterns_for([names[layer] for layer in layers], weighted)]
    return f'\nFor all of them {rule_lines(lines)}' if lines else ''
