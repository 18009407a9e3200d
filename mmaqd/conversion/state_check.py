"""Refuse a checkpoint that belongs to another detector."""
from __future__ import annotations

from typing import Any, Iterable

import torch.nn as nn

from mmaqd.layers import MultiLevelModule
from mmaqd.quantizers import CheckpointMismatchError, Quantizer

_EXAMPLES = 3


def refuse_foreign_state(model: nn.Module) -> None:
    """Make loading a state dict into ``model`` an error if it belongs to another model.

    MMEngine loads what fits and logs the rest, so a detector can end up with untrained layers. A
    state dict is accepted if it has every key of the model in its shape and no other, where it may
    lack quantizers, as a float checkpoint does, but not parts of one, and may have one BN, or one
    quantizer of the inputs, for all levels.
    """
    model._register_load_state_dict_pre_hook(_check_state, with_module=True)


def _check_state(module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    expected = {prefix + key: value.shape for key, value in module.state_dict().items()}
    given = {key: value.shape for key, value in state_dict.items() if key.startswith(prefix)}
    for shared, levels in _level_keys(module, prefix):
        if shared in given:
            shape = given.pop(shared)
            given.update((level, shape) for level in levels)
    optional = tuple(
        own for own in _quantizer_prefixes(module, prefix)
        if not any(key.startswith(own) for key in given))
    problems = {
        'lacks': [
            key for key in expected if key not in given and not key.startswith(optional)
            and not key.endswith('num_batches_tracked')
        ],
        'has also': [key for key in given if key not in expected],
        'has in another shape':
        [key for key in given if key in expected and given[key] != expected[key]],
    }
    if any(problems.values()):
        found = '; '.join(f'it {verb} {_some(keys)}' for verb, keys in problems.items() if keys)
        raise CheckpointMismatchError(
            f'The checkpoint does not belong to this {type(module).__name__}: {found}. Use the '
            'config that the checkpoint was trained with, or a float checkpoint of the same '
            'detector, backbone and number of classes.')


def _level_keys(module: nn.Module, prefix: str) -> Iterable[tuple[str, list[str]]]:
    for name, layer in module.named_modules():
        if isinstance(layer, MultiLevelModule):
            for key in layer[0].state_dict():
                yield f'{prefix}{name}.{key}', [
                    f'{prefix}{name}.{level}.{key}' for level in range(layer.num_levels)
                ]


def _quantizer_prefixes(module: nn.Module, prefix: str) -> Iterable[str]:
    for name, quantizer in module.named_modules():
        if isinstance(quantizer, Quantizer):
            yield f'{prefix}{name}.'


def _some(keys: list[str]) -> str:
    more = len(keys) - _EXAMPLES
    return ', '.join(keys[:_EXAMPLES]) + (f' and {more} more' if more > 0 else '')
