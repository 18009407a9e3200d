"""What the blocks of a low-bit model's config must look like, checked before anything is built."""
from __future__ import annotations

import math
from types import UnionType
from typing import Any, Iterator, Union, get_args, get_origin, get_type_hints

from mmaqd.layers import MultiLevelQuantizer
from mmaqd.quantizers import ActivationQuantizer, WeightQuantizer
from mmaqd.registry import MODELS, QUANTIZERS

from .policy import ROLES

BLOCK_KEYS = (*ROLES, 'rules', 'stream')
_WRONG_KINDS = dict(
    weight_quantizer=(ActivationQuantizer, MultiLevelQuantizer),
    input_quantizer=(WeightQuantizer, ))
_NOUNS = dict(weight_quantizer='weights', input_quantizer='inputs')
_EXAMPLES = dict(
    weight_quantizer='mmaqd.LIQWeightQuantizer', input_quantizer='mmaqd.LIQActivationQuantizer')


def check_detector(detector: Any) -> None:
    """Check the type of the detector that is quantized.

    Raises:
        TypeError: It is missing or no type.
        KeyError: There is no such type.
    """
    if isinstance(detector, str):
        found = MODELS.get(detector)
    else:
        found = detector if callable(detector) else None
    if found is None:
        raise (KeyError if isinstance(detector, str) else TypeError)(
            f'model.detector: {detector} is not in the registry of models. It must be the type of '
            "the detector that is quantized, such as 'RetinaNet'.")
    if getattr(found, '__name__', '') == 'QuantizedDetector':
        raise ValueError('model.detector must be the type of the float detector, such as '
                         f"'RetinaNet', but got {detector!r}; only model.type names it.")


def check_block(block: Any) -> dict:
    """Check the block ``model.quantization``.

    Returns:
        Its keys for :func:`mmaqd.conversion.prepare`.

    Raises:
        ValueError, TypeError, KeyError: Something in it is wrong; the message starts with the key.
    """
    where = 'model.quantization'
    if not isinstance(block, dict):
        raise TypeError(f'{where} must be a dict with {", ".join(BLOCK_KEYS)}, but got {block!r}.')
    unknown = sorted(map(str, set(block) - {*BLOCK_KEYS, '_scope_'}))
    if unknown:
        raise ValueError(f'{where}: unknown key(s) {", ".join(unknown)}; known are '
                         f'{", ".join(BLOCK_KEYS)}.')
    rules = block.get('rules')
    if rules is not None and not isinstance(rules, (list, tuple)):
        raise TypeError(f'{where}.rules must be a list of rules, each dict(pattern=...), but got '
                        f'{rules!r}.')
    for role in ROLES:
        _check_quantizer(block.get(role), role, f'{where}.{role}')
    for position, rule in enumerate(rules or ()):
        _check_rule(rule, block, f'{where}.rules[{position}]')
    _check_stream(block.get('stream'), f'{where}.stream')
    return {
        **{
            role: block.get(role)
            for role in ROLES
        }, 'rules': rules or (),
        'stream': block.get('stream')
    }


def check_distillation(block: Any) -> None:
    """Check the kinds of what is in the block ``model.distillation``.

    Raises:
        TypeError: One is wrong; the message starts with the key.
    """
    where = 'model.distillation'
    if not isinstance(block, dict):
        raise TypeError(f'{where} must be a dict with checkpoint and losses, but got {block!r}.')
    losses = block.get('losses')
    if losses and (not isinstance(losses, (list, tuple))
                   or not all(isinstance(loss, dict) for loss in losses)):
        raise TypeError(f"{where}.losses must be a list of configs, such as [dict(type='mmaqd."
                        f"FeatureDistillationLoss', module='neck')], but got {losses!r}.")
    for key, kinds, noun in (('checkpoint', str, 'a path or URL'),
                             ('teacher', (str, dict), 'the path of a config or a model\'s config')):
        if block.get(key) and not isinstance(block[key], kinds):
            raise TypeError(f'{where}.{key} must be {noun}, but got {block[key]!r}.')


def _check_stream(stream: Any, where: str) -> None:
    if stream is None:
        return
    example = 'None or a dict such as dict(bit_width=8)'
    if not isinstance(stream, dict):
        raise TypeError(f'{where} must be {example}, but got {stream!r}.')
    if set(stream) != {'bit_width'}:
        raise ValueError(f'{where} must be {example}, but got the keys '
                         f'{", ".join(map(str, stream)) or "of an empty one"}.')


def _check_rule(rule: Any, block: dict, where: str) -> None:
    if not isinstance(rule, dict):
        return  # the policy says what a rule is
    for role in ROLES:
        change = rule.get(role)
        if isinstance(change, dict) and 'type' not in change:
            base = block.get(role) or {}
            _check_values(change, _class_of(base.get('type')), f'{where}.{role}')
        else:
            _check_quantizer(change, role, f'{where}.{role}')


def _check_quantizer(cfg: Any, role: str, where: str) -> None:
    if cfg is None:
        return
    if not isinstance(cfg, dict):
        raise TypeError(f"{where} must be a dict such as dict(type='{_EXAMPLES[role]}', "
                        f'bit_width=4), or None for float, but got {cfg!r}.')
    found = _class_of(cfg.get('type'))
    if found is None:
        names = ', '.join(f'mmaqd.{name}' for name in sorted(QUANTIZERS.module_dict))
        raise KeyError(f'{where}.type must be one of {names}, but got {cfg.get("type")!r}.')
    if issubclass(found, _WRONG_KINDS[role]):
        raise ValueError(f'{where}: a {found.__name__} is not for {_NOUNS[role]}. Take one that '
                         f'is, such as {_EXAMPLES[role]}.')
    if issubclass(found, MultiLevelQuantizer):
        _check_quantizer(cfg.get('quantizer'), role, f'{where}.quantizer')
    _check_values(cfg, found, where)


def _class_of(type_: Any) -> type | None:
    if isinstance(type_, type):
        return type_
    return QUANTIZERS.get(type_) if isinstance(type_, str) and type_ else None


def _check_values(cfg: dict, quantizer: type | None, where: str) -> None:
    """Compare the values with the type hints of the quantizer's arguments."""
    hints = get_type_hints(quantizer.__init__) if quantizer else {}
    for key, value in cfg.items():
        # The range of bits, and what else is no integer there, is checked by each quantizer.
        kinds = () if key == 'bit_width' else tuple(_kinds(hints.get(key)))
        if kinds and not any(_is_a(value, kind) for kind in kinds):
            names = ' or '.join('None' if kind is type(None) else kind.__name__ for kind in kinds)
            raise TypeError(f'{where}.{key} must be {names}, but got {value!r}.')


def _kinds(hint: Any) -> Iterator[type]:
    """The plain types that a hint allows; none if it is of another kind."""
    if get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from _kinds(each)
    elif hint in (bool, int, float, str, type(None)):
        yield hint


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
