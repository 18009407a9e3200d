"""Switches quantizers of a model off for a while, and names its layers and stages."""
from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Collection, Iterator, Sequence

import torch.nn as nn
from torch import Tensor

from mmaqd.layers import QuantLayer

_ROLES = ('weight_quantizer', 'input_quantizer')


def quantized_layers(model: nn.Module) -> dict[str, QuantLayer]:
    """The layers of a model that have a quantizer for weights or inputs, by name.

    Raises:
        ValueError: There are none.
    """
    layers = _find(model)
    if not layers:
        raise ValueError(f'{type(model).__name__} has no quantized layer. Take the config of a '
                         "low-bit model (type='mmaqd.QuantizedDetector'); its checkpoint may be "
                         'that of the float twin.')
    return layers


def check_layers(names: Collection[str], layers: Collection[str]) -> None:
    """Make sure that names are names of quantized layers.

    Raises:
        ValueError: Some are not among ``layers``.
    """
    unknown = sorted(set(names) - set(layers))
    if unknown:
        raise ValueError(f'{", ".join(unknown)}: no quantized layers of the model. These are '
                         f'there: {", ".join(sorted(layers))}.')


def stage_of(layer: str) -> str:
    """The stage that a layer belongs to: the first two parts of its name.

    Example:
        >>> stage_of('backbone.layer1.0.conv1'), stage_of('bbox_head.retina_cls')
        ('backbone.layer1', 'bbox_head.retina_cls')
    """
    return '.'.join(layer.split('.')[:2])


def group_layers(layers: Collection[str],
                 by: str = 'stage',
                 patterns: Sequence[str] = ()) -> dict[str, list[str]]:
    """Put layers into groups.

    Args:
        layers: Names of layers.
        by: ``'stage'`` (see :func:`stage_of`) or ``'layer'`` (each its own group).
        patterns: Shell patterns over the names (``*`` also matches dots), a group
            for each; replaces ``by``.

    Returns:
        Names of the layers by the name of the group.

    Raises:
        ValueError: A pattern matches no layer, or ``by`` is unknown.
    """
    if patterns:
        groups = {
            pattern: [name for name in layers if fnmatchcase(name, pattern)]
            for pattern in patterns
        }
        for pattern, names in groups.items():
            if not names:
                raise ValueError(f'The pattern {pattern!r} matches no quantized layer. These are '
                                 f'there: {", ".join(layers)}.')
        return groups
    if by not in ('stage', 'layer'):
        raise ValueError(f"Layers are grouped by 'stage' or by 'layer', but got {by!r}.")
    groups = {}
    for name in layers:
        groups.setdefault(stage_of(name) if by == 'stage' else name, []).append(name)
    return groups


@contextmanager
def only_quantized(model: nn.Module,
                   layers: Collection[str],
                   keep_normalized: bool = True) -> Iterator[None]:
    """Within the block only the given layers of ``model`` are quantized, all others are in float.

    Where weights are normalized before they are quantized, the BN behind them has absorbed the
    scale, if it was trained so: in float such a layer works with the normalized weights.

    Args:
        model: A model; one without quantized layers stays as it is.
        layers: Names of those that stay quantized.
        keep_normalized: Normalize the weights of layers in float as their quantizer does.
            False takes the weights as they are, as the checkpoint of a float model needs it.

    Raises:
        ValueError: A name in ``layers`` is no quantized layer of the model.
    """
    found = _find(model)
    check_layers(layers, found)
    off = [layer for name, layer in found.items() if name not in layers]
    kept = [{role: getattr(layer, role) for role in _ROLES} for layer in off]
    try:
        for layer in off:
            layer.weight_quantizer = _without_rounding(layer, keep_normalized)
            layer.input_quantizer = None
        yield
    finally:
        for layer, quantizers in zip(off, kept):
            for role, quantizer in quantizers.items():
                setattr(layer, role, quantizer)


def _find(model: nn.Module) -> dict[str, QuantLayer]:
    return {
        name: module
        for name, module in model.named_modules() if isinstance(module, QuantLayer) and any(
            getattr(module, role) is not None for role in _ROLES)
    }


class _NormalizingQuantizer(nn.Module):
    """Stands in for a quantizer that is switched off: normalizes the weights, rounds nothing."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel.normalized(x)


def _without_rounding(layer: QuantLayer, keep_normalized: bool) -> nn.Module | None:
    quantizer = layer.weight_quantizer
    if keep_normalized and quantizer is not None and quantizer.kernel.normalizes:
        return _NormalizingQuantizer(quantizer.kernel)
    return None
