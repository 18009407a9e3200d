"""Float model to quantized model: swap its layers in place."""
from __future__ import annotations

from typing import Callable, Mapping, Sequence

import torch.nn as nn
from mmengine.logging import print_log
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import ParametrizationList

from mmaqd.layers import QuantLayer
from mmaqd.quantizers.patterns import patterns_for
from mmaqd.quantizers.rules import TO_FLOAT, has_weights, rule_lines, weight_of

from .attention import Projection, keep_torch_from_reading, quantized_attentions
from .convertible import TWINS, is_attention, is_convertible, why_not
from .policy import ROLES, Assignment, QuantizationPolicy
from .streams import add_streams
from .weight_reads import weights_read

# They hold weights, but a look-up or a scaling of each element is no work for integers.
_HARMLESS = (_InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.Embedding, nn.EmbeddingBag)
_SHOWN = 8

# What a rule can be about.
Target = nn.Module | Projection


def prepare(model: nn.Module,
            weight_quantizer: dict | None = None,
            input_quantizer: dict | None = None,
            rules: Sequence[dict] = (),
            stream: dict | None = None) -> nn.Module:
    """Swap the layers of ``model`` that multiply by weights for quantized ones.

    These are :class:`torch.nn.Conv2d`, ``ConvTranspose2d``, ``Linear`` and the projections of
    ``MultiheadAttention`` (by the names ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj`` in it;
    a rule for the attention is one for all of them), and mmcv's deformable convs and
    ``Conv2dAdaptivePadding``. The parameters are the same objects under the same names. Other
    modules with weights can't be quantized, nor can a layer whose weight is read without calling
    it; they must be left in float by a rule, so that nothing stays in float unnoticed.

    Where ``normalize`` of LIQ's weights is not given, a layer with a bias, behind which there is
    rarely a norm, is quantized without it.

    Args:
        model: A float model; changed in place.
        weight_quantizer: Default quantizer config for the weights.
        input_quantizer: Default quantizer config for the inputs.
        rules: Exceptions by module name or type, see :class:`QuantizationPolicy`.
        stream: None, or arguments of :func:`mmaqd.conversion.add_streams`: train with the integers
            that skip connections and top-down additions are computed in after conversion.

    Returns:
        ``model``.

    Raises:
        ValueError: A rule that matches nothing; modules that can't be quantized and that no rule
            leaves in float, all in one error; rules that contradict each other about a shared
            layer; a bad argument of a quantizer.
        KeyError, TypeError: An unknown type or an unknown key of a quantizer.
    """
    weighted = _weighted_modules(model)
    policy = QuantizationPolicy(weight_quantizer, input_quantizer, rules)
    assignments = policy.assign(
        list(weighted), {
            name: _types(target, name, weighted)
            for name, target in weighted.items()
        }, {
            name: name.rpartition('.')[0]
            for name, target in weighted.items() if isinstance(target, Projection)
        })
    names = _first_names(weighted, assignments)
    wanted = {
        target: name
        for target, name in names.items() if not assignments[name].is_float
        and not isinstance(target, _HARMLESS) and not is_attention(target)
    }
    _refuse_inconvertible(model, wanted, list(weighted))
    layers = {target: name for target, name in wanted.items() if _holds_weight(target)}
    attentions = quantized_attentions(model, layers)
    made = {
        target: _quantized(name, target, assignments[name], attentions)
        for target, name in layers.items()
    }
    _say_what_is_not_normalized(made, wanted, assignments, list(weighted))
    swapped = {**attentions, **{each: made[each] for each in made if isinstance(each, nn.Module)}}
    if model in swapped:
        raise ValueError(f'prepare() changes a model in place, but got a bare '
                         f'{type(model).__name__}: put it into a module, e.g. '
                         'torch.nn.Sequential(conv), or use QuantConv2d.from_conv(conv, ...).')
    _replace(model, swapped)
    keep_torch_from_reading(model)
    if stream is not None:
        add_streams(model, **stream)
    return model


def _weighted_modules(model: nn.Module) -> dict[str, Target]:
    """Modules with a parameter of two or more dimensions, under each of their names.

    Behind an attention its projections follow, whose weights lie in parameters of the attention.
    """
    found: dict[str, Target] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if has_weights(module) and not isinstance(module, (_BatchNorm, ParametrizationList)):
            found[name] = module
            if is_attention(module):
                found.update(Projection.all_of(module, name))
    return found


def _types(target: Target, name: str, weighted: Mapping[str, Target]) -> list[str]:
    """Names of the classes by which a rule can mean a module, or the attention it is a part of."""
    if isinstance(target, Projection):
        return _types(target.attention, name, weighted)
    whole = weighted.get(name.rpartition('.')[0])
    classes = [*type(target).__mro__, *(type(whole).__mro__ if is_attention(whole) else ())]
    return [cls.__name__ for cls in classes if cls not in (nn.Module, object)]


def _first_names(weighted: Mapping[str, Target],
                 assignments: dict[str, Assignment]) -> dict[Target, str]:
    """The name by which each module is known; its others must be assigned the same."""
    first: dict[Target, str] = {}
    for name, target in weighted.items():
        known = first.setdefault(target, name)
        _check_same(name, assignments[name], known, assignments[known])
    return first


def _holds_weight(target: Target) -> bool:
    """Whether what multiplies is a weight, as far as one can know, and not a table or a query."""
    return isinstance(target, (Projection, nn.MultiheadAttention)) or weight_of(target) is not None


def _refuse_inconvertible(model: nn.Module, wanted: dict[Target, str],
                          all_names: list[str]) -> None:
    """Raise one error for all modules that should be quantized and can't be."""
    readers = weights_read(model)
    reasons = {
        target: why_not(target, readers)
        for target in wanted if not isinstance(target, Projection) and _holds_weight(target)
    }
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


def _float_rules(refused: dict[nn.Module, str], names: dict[Target, str],
                 all_names: list[str]) -> str:
    types = {type(each).__name__ for each in refused if not is_convertible(each)}
    rest = [names[each] for each in refused if is_convertible(each)]
    lines = [(pattern, TO_FLOAT) for pattern in patterns_for(rest, all_names)]
    by_type = f'\n    dict(module_type={sorted(types)}, {TO_FLOAT}),' if types else ''
    return rule_lines(lines) + by_type


def _quantized(name: str, target: Target, assignment: Assignment,
               attentions: Mapping[nn.Module, nn.Module]) -> QuantLayer:
    """The quantized layer for a target; that for a projection is put into its attention."""

    def make(weight: dict | None, inputs: dict | None) -> QuantLayer:
        if isinstance(target, Projection):
            return attentions[target.attention].quantize_projection(target.name, weight, inputs)
        return TWINS[type(target)].from_float(target, weight, inputs)

    layer = _made(name, assignment, make)
    for role in ROLES:
        quantizer = getattr(layer, role)
        if quantizer is not None:
            quantizer.name = f'{name}.{role}'
            quantizer.to(layer.weight.device)
    if layer.weight_quantizer is not None:
        layer.weight_quantizer.norm_is_promised = 'normalize' in assignment.weight_quantizer
    return layer


def _made(name: str, assignment: Assignment, make: Callable[..., QuantLayer]) -> QuantLayer:
    """The layer, without normalization where a bias speaks against it and nobody asked for it."""
    weight, inputs = assignment.weight_quantizer, assignment.input_quantizer
    try:
        layer = make(weight, inputs)
        quantizer = layer.weight_quantizer
        if quantizer is not None and quantizer.kernel.normalizes and _has_bias(layer):
            if 'normalize' not in weight and 'type' not in quantizer.unscaled_cfg:
                layer = make({**weight, **quantizer.unscaled_cfg}, inputs)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f'{name}: {error.args[0]}') from error
    return layer


def _has_bias(layer: nn.Module) -> bool:
    return getattr(layer, 'bias', None) is not None


def _say_what_is_not_normalized(made: dict[Target, QuantLayer], names: dict[Target, str],
                                assignments: dict[str, Assignment], all_names: list[str]) -> None:
    """Log where normalization was left out because of a bias."""
    left_out = [
        names[module] for module, layer in made.items()
        if layer.weight_quantizer is not None and 'type' not in layer.weight_quantizer.unscaled_cfg
        and not layer.weight_quantizer.kernel.normalizes
        and 'normalize' not in assignments[names[module]].weight_quantizer
    ]
    if left_out:
        print_log(
            f'The weights of {len(left_out)} layers are quantized without normalization, because '
            'they have a bias, so that probably no norm follows: '
            f'{", ".join(patterns_for(left_out, all_names))}. normalize=True or False in a rule '
            'decides.', 'current')


def _check_same(name: str, here: Assignment, first_name: str, there: Assignment) -> None:
    if here != there:
        raise ValueError(f'{name}: this layer is shared with {first_name}, for which the rules ask '
                         f'something else: {there} there, {here} here. Let the rules match both.')


def _replace(model: nn.Module, swapped: Mapping[nn.Module, nn.Module]) -> None:
    for parent in [*model.modules(), *swapped.values()]:
        for key, child in parent._modules.items():
            if child in swapped:
                parent._modules[key] = swapped[child]


def selectable(model: nn.Module) -> dict[str, list[str]]:
    """The names of a float model's modules that rules select, each with its names of classes."""
    weighted = _weighted_modules(model)
    return {
        name: _types(target, name, weighted)
        for name, target in weighted.items() if not is_attention(target)
    }


def refusals(model: nn.Module) -> dict[str, str]:
    """Why modules of a float model can't be quantized: rules must leave these in float.

    Returns:
        The reason by the name of the module, under each of its names.
    """
    readers = weights_read(model)
    reasons = {
        name: why_not(target, readers)
        for name, target in _weighted_modules(model).items()
        if not isinstance(target, (Projection, *_HARMLESS)) and _holds_weight(target)
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}
