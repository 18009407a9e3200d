"""Float model to quantized model: swap the convs in place."""
from __future__ import annotations

from typing import Optional, Sequence

import torch.nn as nn
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.layers import QuantConv2d

from .policy import Assignment, QuantizationPolicy

_CONVERTIBLE = (nn.Conv2d, MMCVConv2d)


def prepare(model: nn.Module,
            weight_quantizer: Optional[dict] = None,
            input_quantizer: Optional[dict] = None,
            rules: Sequence[dict] = ()) -> nn.Module:
    """Swap every :class:`torch.nn.Conv2d` of ``model`` for a :class:`mmaqd.layers.QuantConv2d`.

    The parameters are the same objects under the same names. Modules with weights that are not
    plain 2-d convs (deformable and transposed convs, linear layers, ...) can't be quantized; they
    must be left in float by a rule, so that nothing stays in float unnoticed.

    Args:
        model: A float model; changed in place.
        weight_quantizer: Default quantizer config for the weights.
        input_quantizer: Default quantizer config for the inputs.
        rules: Exceptions by module name, see :class:`QuantizationPolicy`.

    Returns:
        ``model``.

    Raises:
        ValueError: A rule that matches nothing; a module that can't be quantized and that no rule
            leaves in float; weights that would be normalized although no BN follows; rules that
            contradict each other about a shared conv; a bad argument of a quantizer.
        KeyError, TypeError: An unknown type or an unknown key of a quantizer.
    """
    weighted = _weighted_modules(model)
    policy = QuantizationPolicy(weight_quantizer, input_quantizer, rules)
    assignments = policy.assign(list(weighted))
    first_name: dict[nn.Module, str] = {}
    swapped: dict[nn.Module, QuantConv2d] = {}
    for name, module in weighted.items():
        assignment = assignments[name]
        if module in first_name:
            _check_same(name, assignment, first_name[module], assignments[first_name[module]])
            continue
        first_name[module] = name
        if not assignment.is_float:
            swapped[module] = _quantized(name, module, assignment)
    if model in swapped:
        raise ValueError(f'prepare() changes a model in place, but got a bare '
                         f'{type(model).__name__}: put it into a module, e.g. '
                         'torch.nn.Sequential(conv), or use QuantConv2d.from_conv(conv, ...).')
    _replace(model, swapped)
    return model


def _weighted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with a weight of two or more dimensions, under each of their names."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if getattr(module._parameters.get('weight'), 'ndim', 0) >= 2
        and not isinstance(module, _BatchNorm)
    }


def _quantized(name: str, module: nn.Module, assignment: Assignment) -> QuantConv2d:
    if type(module) not in _CONVERTIBLE:
        raise ValueError(
            f'{name}: a {type(module).__name__} can\'t be quantized, only torch.nn.Conv2d can. '
            f'Leave it in float by a rule: dict(pattern={name!r}, weight_quantizer=None, '
            'input_quantizer=None).')
    try:
        conv = QuantConv2d.from_conv(module, assignment.weight_quantizer,
                                     assignment.input_quantizer)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f'{name}: {error.args[0]}') from error
    for role in ('weight_quantizer', 'input_quantizer'):
        quantizer = getattr(conv, role)
        if quantizer is not None:
            quantizer.name = f'{name}.{role}'
            quantizer.to(module.weight.device)
    _check_normalization(name, conv, assignment)
    return conv


def _check_normalization(name: str, conv: QuantConv2d, assignment: Assignment) -> None:
    kernel = getattr(conv.weight_quantizer, 'kernel', None)
    asked = 'normalize' in (assignment.weight_quantizer or {})
    if getattr(kernel, 'normalize', False) and conv.bias is not None and not asked:
        raise ValueError(
            f'{name}: its weights would be normalized, but it has a bias, so no BN seems to '
            'follow that takes the scale back. Give normalize explicitly, e.g. by the rule '
            f'dict(pattern={name!r}, weight_quantizer=dict(normalize=False)).')


def _check_same(name: str, here: Assignment, first_name: str, there: Assignment) -> None:
    if here != there:
        raise ValueError(f'{name}: this conv is shared with {first_name}, for which the rules ask '
                         f'something else: {there} there, {here} here. Let the rules match both.')


def _replace(model: nn.Module, swapped: dict[nn.Module, QuantConv2d]) -> None:
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child in swapped:
                parent._modules[key] = swapped[child]
