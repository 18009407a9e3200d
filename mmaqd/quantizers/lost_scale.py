"""Refuse weights of another scale where no norm takes the scale back.

LIQ normalizes weights by default and DoReFa brings them to [-1, 1]. A norm that follows its input
makes up for that. One whose statistics are frozen expects the outputs of the float model, as does
anything else behind a layer.
"""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .batch_statistics import frozen_norms
from .patterns import patterns_for
from .roles import WeightQuantizer
from .rules import module_names, rule_lines

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
_OWNER = '_mmaqd_layer'

#: The layers that were called, each with the norms that got its output as it was.
NormsBehind = dict[nn.Module, set[nn.Module]]


@contextmanager
def norms_behind(model: nn.Module) -> Iterator[NormsBehind]:
    """Find the norms behind the layers of ``model`` whose weights get another scale.

    Yields:
        Filled while the model runs.
    """
    found: NormsBehind = {}

    def mark(layer: nn.Module, _: Any, output: Any) -> None:
        found.setdefault(layer, set())
        setattr(output, _OWNER, layer)  # a tensor takes attributes; no other tensor inherits them

    def note(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        layer = getattr(inputs[0], _OWNER, None) if inputs else None
        if layer is not None:
            found[layer].add(norm)

    handles = [layer.register_forward_hook(mark) for layer in _rescaling_layers(model)]
    if handles:
        handles += [
            module.register_forward_pre_hook(note) for module in model.modules()
            if isinstance(module, _NORMS)
        ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def describe_lost_scales(model: nn.Module, behind: NormsBehind, need_norms: bool) -> list[str]:
    """A text for each kind of layers in ``behind`` with weights of another scale that stays.

    Args:
        model: The model that ran.
        behind: From :func:`norms_behind`.
        need_norms: Whether it is a fault that a layer has no norm behind it, as it always is that
            the norm is frozen.
    """
    frozen, names = frozen_norms(model), module_names(model)
    stuck = {layer: norms & frozen for layer, norms in behind.items() if norms & frozen}
    bare = [
        layer for layer, norms in behind.items()
        if need_norms and not norms and not layer.weight_quantizer.norm_is_promised
    ]
    texts = []
    if stuck:
        layer, norms = next(iter(stuck.items()))
        texts.append(
            f'{names[layer]}: {_what(layer)}, and {names[next(iter(norms))]} behind it keeps its '
            'statistics in training (norm_eval, frozen_stages or eval()), which are those of the '
            f'float model: nothing takes the scale back{_others(stuck)}. Let the norms train '
            '(norm_eval=False, frozen_stages=-1), or quantize these weights at their own scale: '
            f'{_rules(model, stuck)}')
    if bare:
        texts.append(
            f'{names[bare[0]]}: {_what(bare[0])}, and no norm gets its output, so nothing takes '
            f'the scale back{_others(bare)}. Quantize these weights at their own scale: '
            f'{_rules(model, bare)}')
    return texts


def _rescaling_layers(model: nn.Module) -> list[nn.Module]:
    return [
        module for module in model.modules()
        if isinstance(getattr(module, 'weight_quantizer', None), WeightQuantizer)
        and module.weight_quantizer.is_fresh and module.weight_quantizer.kernel.normalizes
    ]


def _what(layer: nn.Module) -> str:
    return (f'{type(layer.weight_quantizer).__name__} brings its weights to another scale before '
            'they are quantized')


def _others(layers: Any) -> str:
    return f' (nor for {len(layers) - 1} other layers)' if len(layers) > 1 else ''


def _rules(model: nn.Module, layers: Any) -> str:
    names = module_names(model)
    changes: dict[str, list[str]] = {}
    for layer in layers:
        change = f'weight_quantizer={layer.weight_quantizer.unscaled_cfg}'
        changes.setdefault(change, []).append(names[layer])
    return rule_lines((pattern, change) for change, owners in changes.items()
                      for pattern in patterns_for(owners, list(names.values())))
