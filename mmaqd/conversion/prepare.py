"""Float model to quantized model: swap the convs in place."""
from __future__ import annotations

from typing import Optional, Sequence

import torch.nn as nn
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmengine.logging import print_log
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import ParametrizationList

from mmaqd.layers import QuantConv2d
from mmaqd.quantizers.patterns import patterns_for
from mmaqd.quantizers.rules import TO_FLOAT, has_weights, rule_lines, weight_of

from .policy import Assignment, QuantizationPolicy
from .weight_reads import weights_read

_CONVERTIBLE = (nn.Conv2d, MMCVConv2d)
# They hold weights, but a look-up or a scaling of each element is no work for integers.
_HARMLESS = (_InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.Embedding, nn.EmbeddingBag)
_SHOWN = 8


def prepare(model: nn.Module,
            weight_quantizer: Optional[dict] = None,
            input_quantizer: Optional[dict] = None,
            rules: Sequence[dict] = ()) -> nn.Module:
    """Swap every :class:`torch.nn.Conv2d` of ``model`` for a :class:`mmaqd.layers.QuantConv2d`.

    The parameters are the same objects under the same names. Modules with weights that are not
    plain 2-d convs (deformable and transposed convs, linear layers, attention, ...) can't be
    quantized, nor can a conv whose weight is read without calling it; they must be left in float by
    a rule, so that nothing stays in float unnoticed.

    Where ``normalize`` of LIQ's weights is not given, a conv with a bias, behind which there is
    rarely a norm, is quantized without it.

    Args:
        model: A float model; changed in place.
        weight_quantizer: Default quantizer config for the weights.
        input_quantizer: Default quantizer config for the inputs.
        rules: Exceptions by module name or type, see :class:`QuantizationPolicy`.

    Returns:
        ``model``.

    Raises:
        ValueError: A rule that matches nothing; modules that can't be quantized and that no rule
            leaves in float, all in one error; rules that contradict each other about a shared conv;
            a bad argument of a quantizer.
        KeyError, TypeError: An unknown type or an unknown key of a quantizer.
    """
    weighted = _weighted_modules(model)
    policy = QuantizationPolicy(weight_quantizer, input_quantizer, rules)
    assignments = policy.assign(
        list(weighted), {
            name: [cls.__name__ for cls in type(module).__mro__ if cls not in (nn.Module, object)]
            for name, module in weighted.items()
        })
    names = _first_names(weighted, assignments)
    wanted = {
        module: name
        for module, name in names.items()
        if not assignments[name].is_float and not isinstance(module, _HARMLESS)
    }
    _refuse_inconvertible(model, wanted, list(weighted))
    swapped = {
        module: _quantized(name, module, assignments[name])
        for module, name in wanted.items() if _holds_weight(module)
    }
    _say_what_is_not_normalized(swapped, wanted, assignments, list(weighted))
    if model in swapped:
        raise ValueError(f'prepare() changes a model in place, but got a bare '
                         f'{type(model).__name__}: put it into a module, e.g. '
                         'torch.nn.Sequential(conv), or use QuantConv2d.from_conv(conv, ...).')
    _replace(model, swapped)
    return model


def _weighted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with a parameter of two or more dimensions, under each of their names."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if has_weights(module) and not isinstance(module, (_BatchNorm, ParametrizationList))
    }


def _first_names(weighted: dict[str, nn.Module],
                 assignments: dict[str, Assignment]) -> dict[nn.Module, str]:
    """The name by which each module is known; its others must be assigned the same."""
    first: dict[nn.Module, str] = {}
    for name, module in weighted.items():
        known = first.setdefault(module, name)
        _check_same(name, assignments[name], known, assignments[known])
    return first


def _holds_weight(module: nn.Module) -> bool:
    """Whether what multiplies is a weight, as far as one can know, and not a table or a query."""
    return isinstance(module, nn.MultiheadAttention) or weight_of(module) is not None


def _refuse_inconvertible(model: nn.Module, wanted: dict[nn.Module, str],
                          all_names: list[str]) -> None:
    """Raise one error for all modules that should be quantized and can't be."""
    readers = weights_read(model)
    reasons = {module: _reason(module, readers) for module in wanted if _holds_weight(module)}
    refused = {module: reason for module, reason in reasons.items() if reason is not None}
    if not refused:
        return
    names = [wanted[module] for module in refused]
    text = f'{names[0]}: {next(iter(refused.values()))}. Leave it in float by a rule: '
    if len(names) == 1:
        raise ValueError(f'{text}dict(pattern={names[0]!r}, {TO_FLOAT}).')
    raise ValueError(f'{text}dict(pattern={names[0]!r}, {TO_FLOAT}).\n'
                     f'{len(names) - 1} more that can\'t be quantized: '
                     f'{", ".join(names[1:_SHOWN])}{", ..." if len(names) > _SHOWN else ""}. '
                     f'For all of them {_float_rules(refused, wanted, all_names)}')


def _reason(module: nn.Module, readers: dict[nn.Module, str]) -> Optional[str]:
    """Why a module can't be quantized, None if it can."""
    kind = type(module).__name__
    if type(module) not in _CONVERTIBLE:
        article = 'an' if kind[0] in 'AEIOU' else 'a'
        return f'{article} {kind} can\'t be quantized, only torch.nn.Conv2d can'
    if 'weight' not in module._parameters:
        return f'a {kind} whose weight is computed from other parameters can\'t be quantized'
    if module in readers:
        return (f'a {kind} can\'t be quantized if its weight is read without calling it, as '
                f'{readers[module]} does')
    return None


def _float_rules(refused: dict[nn.Module, str], names: dict[nn.Module, str],
                 all_names: list[str]) -> str:
    types = {type(each).__name__ for each in refused if type(each) not in _CONVERTIBLE}
    rest = [names[each] for each in refused if type(each) in _CONVERTIBLE]
    lines = [(pattern, TO_FLOAT) for pattern in patterns_for(rest, all_names)]
    by_type = f'\n    dict(module_type={sorted(types)}, {TO_FLOAT}),' if types else ''
    return rule_lines(lines) + by_type


def _quantized(name: str, module: nn.Module, assignment: Assignment) -> QuantConv2d:
    weight = assignment.weight_quantizer
    asked = 'normalize' in (weight or {})
    try:
        conv = QuantConv2d.from_conv(module, weight, assignment.input_quantizer)
        quantizer = conv.weight_quantizer
        if quantizer is not None and quantizer.kernel.normalizes and conv.bias is not None:
            if not asked and 'type' not in quantizer.unscaled_cfg:
                weight = {**weight, **quantizer.unscaled_cfg}
                conv = QuantConv2d.from_conv(module, weight, assignment.input_quantizer)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f'{name}: {error.args[0]}') from error
    for role in ('weight_quantizer', 'input_quantizer'):
        quantizer = getattr(conv, role)
        if quantizer is not None:
            quantizer.name = f'{name}.{role}'
            quantizer.to(module.weight.device)
    if conv.weight_quantizer is not None:
        conv.weight_quantizer.norm_is_promised = asked
    return conv


def _say_what_is_not_normalized(swapped: dict[nn.Module, QuantConv2d], names: dict[nn.Module, str],
                                assignments: dict[str, Assignment], all_names: list[str]) -> None:
    """Log where normalization was left out because of a bias."""
    left_out = [
        names[module] for module, conv in swapped.items()
        if conv.weight_quantizer is not None and 'type' not in conv.weight_quantizer.unscaled_cfg
        and not conv.weight_quantizer.kernel.normalizes
        and 'normalize' not in assignments[names[module]].weight_quantizer
    ]
    if left_out:
        print_log(
            f'The weights of {len(left_out)} convs are quantized without normalization, because '
            'they have a bias, so that probably no norm follows: '
            f'{", ".join(patterns_for(left_out, all_names))}. normalize=True or False in a rule '
            'decides.', 'current')


def _check_same(name: str, here: Assignment, first_name: str, there: Assignment) -> None:
    if here != there:
        raise ValueError(f'{name}: this conv is shared with {first_name}, for which the rules ask '
                         f'something else: {there} there, {here} here. Let the rules match both.')


def _replace(model: nn.Module, swapped: dict[nn.Module, QuantConv2d]) -> None:
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child in swapped:
                parent._modules[key] = swapped[child]


def selectable(model: nn.Module) -> dict[str, list[str]]:
    """The names of a float model's modules that rules select, each with its names of classes."""
    return {
        name: [cls.__name__ for cls in type(module).__mro__ if cls not in (nn.Module, object)]
        for name, module in _weighted_modules(model).items()
    }


def refusals(model: nn.Module) -> dict[str, str]:
    """Why modules of a float model can't be quantized: rules must leave these in float.

    Returns:
        The reason by the name of the module, under each of its names.
    """
    readers = weights_read(model)
    reasons = {
        name: _reason(module, readers)
        for name, module in _weighted_modules(model).items()
        if not isinstance(module, _HARMLESS) and _holds_weight(module)
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}
