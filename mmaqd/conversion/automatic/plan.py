"""From what was seen of the layers to quantizers by default and few rules for the exceptions."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Iterable, Mapping

from mmaqd.quantizers.patterns import patterns_for

from .probing import Layer, Probe

EXACT_BITS = 8
_WEIGHTS, _INPUTS = 'weight_quantizer', 'input_quantizer'
_FLOAT = {_WEIGHTS: None, _INPUTS: None}


@dataclass(frozen=True)
class Method:
    """A family of quantizers.

    Attributes:
        title: Its name in texts.
        weights: Type of the quantizers of weights.
        inputs: Type of the quantizers of inputs.
        normalizes: Whether it normalizes weights in front of a norm.
        has_sign: Whether negative inputs need ``signed=True``.
    """

    title: str
    weights: str
    inputs: str
    normalizes: bool
    has_sign: bool


METHODS = dict(
    liq=Method('LIQ', 'mmaqd.LIQWeightQuantizer', 'mmaqd.LIQActivationQuantizer', True, True),
    lsq=Method('LSQ', 'mmaqd.LSQWeightQuantizer', 'mmaqd.LSQActivationQuantizer', False, True),
    lsqplus=Method('LSQ+', 'mmaqd.LSQPlusWeightQuantizer', 'mmaqd.LSQPlusActivationQuantizer',
                   False, False))


@dataclass(frozen=True)
class Rule:
    """An exception: rules of a config that differ in their pattern alone.

    Attributes:
        why: A sentence for the config.
        what: A few words for a table.
        change: What it changes, by role.
        patterns: Shell patterns; empty where it selects by type.
        module_types: Class names; empty where it selects by pattern.
        count: Number of layers that it is for.
    """

    why: str
    what: str
    change: dict[str, dict | None]
    patterns: tuple[str, ...] = ()
    module_types: tuple[str, ...] = ()
    count: int = 0

    @property
    def selectors(self) -> list[dict]:
        """The keys by which each of the config's rules selects."""
        if self.module_types:
            return [dict(module_type=list(self.module_types))]
        return [dict(pattern=pattern) for pattern in self.patterns]


@dataclass(frozen=True)
class Plan:
    """The block ``quantization`` of a config, with reasons.

    Attributes:
        weight_quantizer: The default.
        input_quantizer: The default.
        notes: Sentences about the defaults.
        rules: The exceptions, in order.
    """

    weight_quantizer: dict
    input_quantizer: dict
    notes: tuple[str, ...]
    rules: tuple[Rule, ...]

    @property
    def block(self) -> dict[str, Any]:
        """The block as a config has it."""
        rules = [{**selector, **rule.change} for rule in self.rules for selector in rule.selectors]
        return dict(
            weight_quantizer=self.weight_quantizer,
            input_quantizer=self.input_quantizer,
            rules=rules)


def make_plan(seen: Probe, bits: int, method: Method) -> Plan:
    """Decide on the quantizers of every layer.

    The first layers and those that predict get 8 bits, as do offsets of deformable convs. What
    can't be quantized or what nothing reaches stays in float.

    Args:
        seen: What was seen of the layers.
        bits: Bits of weights and inputs elsewhere.
        method: The family of quantizers.
    """
    layers = {
        name: layer
        for name, layer in seen.layers.items() if layer.has_quantizers and layer.is_called
    }
    exact = _exact_rules(layers, bits, method)
    first = {name for name, layer in layers.items() if layer.sees_image}
    # Later rules decide on these, whatever the earlier ones say of them.
    unscaled = first if bits == EXACT_BITS else {
        n
        for n, layer in layers.items() if _exact(n, layer)
    }
    weights, inputs = (
        dict(type=type_, bit_width=bits) for type_ in (method.weights, method.inputs))
    rules: list[Rule] = []
    notes: list[str] = []
    if method.has_sign:
        _decide_signs({
            n: layer
            for n, layer in layers.items() if n not in first
        }, inputs, rules, notes)
    if method.normalizes:
        _decide_normalization({
            n: layer
            for n, layer in layers.items() if n not in unscaled
        }, weights, rules, notes)
    rules += exact + _float_rules(seen.layers)
    return Plan(weights, inputs, tuple(notes), tuple(rules))


def _exact(name: str, layer: Layer) -> bool:
    return layer.sees_image or layer.predicts or _is_offset(name)


def _is_offset(name: str) -> bool:
    return name.endswith('conv_offset')


def _exact_rules(layers: Mapping[str, Layer], bits: int, method: Method) -> list[Rule]:
    """Rules for what gets 8 bits, or no quantizer for its input."""
    weights = dict(bit_width=EXACT_BITS, **(dict(normalize=False) if method.normalizes else {}))
    inputs = dict(bit_width=EXACT_BITS)
    signed = dict(inputs, signed=True) if method.has_sign else inputs
    first = {name: layer for name, layer in layers.items() if layer.sees_image}
    whole = [name for name, layer in first.items() if layer.gets_integers]
    fractional = [name for name in first if name not in whole]
    rules = [
        _rule('The first layer: the image is made of integers already.', 'first layer', {
            _WEIGHTS: weights,
            _INPUTS: None
        }, whole, layers),
        _rule('The first layer: the image was divided by a std, so it is no integer any more.',
              'first layer', {
                  _WEIGHTS: weights,
                  _INPUTS: signed
              }, fractional, layers),
    ]
    if bits < EXACT_BITS:
        change = {_WEIGHTS: weights, _INPUTS: inputs}
        predicting = [n for n, layer in layers.items() if layer.predicts and n not in first]
        offsets = [n for n in layers if _is_offset(n) and n not in predicting and n not in first]
        rules += [
            _rule('The layers that predict.', 'predictions', change, predicting, layers),
            _rule('Offsets of deformable convs are positions.', 'offsets', change, offsets, layers)
        ]
    return [rule for rule in rules if rule.patterns]


def _decide_signs(layers: Mapping[str, Layer], inputs: dict, rules: list[Rule],
                  notes: list[str]) -> None:
    wanted = {name: layer.can_be_negative for name, layer in layers.items()}
    default, exceptions = _fewest_rules(wanted, dict.fromkeys(wanted, False), (None, True))
    if default:
        inputs['signed'] = True
        notes.append('Inputs can be negative: no ReLU is in front of most layers.')
    texts = {
        True: ('Their inputs can be negative: no ReLU is in front.', 'signed inputs'),
        False: ('Their inputs come from a ReLU or the like.', 'unsigned inputs')
    }
    rules += _flags(exceptions, texts, _INPUTS, 'signed')


def _decide_normalization(layers: Mapping[str, Layer], weights: dict, rules: list[Rule],
                          notes: list[str]) -> None:
    wanted = {name: layer.has_trained_norm for name, layer in layers.items()}
    unasked = {name: layer.normalizes_unasked for name, layer in layers.items()}
    default, exceptions = _fewest_rules(wanted, unasked, (None, False))
    if default is False:
        weights['normalize'] = False
        notes.append('Weights keep their scale: behind most layers is no norm that trains.')
    texts = {
        True: ('A norm that trains takes the scale of these weights back.', 'normalized weights'),
        False: ('No norm that trains is right behind these weights.', 'weights not normalized')
    }
    rules += _flags(exceptions, texts, _WEIGHTS, 'normalize')


_Exceptions = dict[bool, tuple[list[str], int]]


def _fewest_rules(wanted: Mapping[str, bool], unset: Mapping[str, bool],
                  defaults: Iterable[bool | None]) -> tuple[bool | None, _Exceptions]:
    """The default with which the fewest rules are needed, None to leave it unset; and the rules.

    Args:
        wanted: A flag for each layer.
        unset: The flags where neither default nor rule gives one.
        defaults: Those to choose from, the preferred ones first.

    Returns:
        The default, and by flag the patterns of its exceptions and the number of these.
    """
    choices = []
    for default in defaults:
        exceptions: _Exceptions = {}
        for flag in (True, False):
            wrong = [
                name for name, wish in wanted.items()
                if wish is flag and (unset[name] if default is None else default) is not flag
            ]
            others = [name for name, wish in wanted.items() if wish is not flag]
            exceptions[flag] = patterns_for(wrong, [*wrong, *others]), len(wrong)
        choices.append((default, exceptions))
    return min(choices, key=lambda each: sum(len(patterns) for patterns, _ in each[1].values()))


def _flags(exceptions: _Exceptions, texts: Mapping[bool, tuple[str, str]], role: str,
           key: str) -> list[Rule]:
    return [
        Rule(*texts[flag], {role: {
            key: flag
        }}, tuple(patterns), count=count) for flag, (patterns, count) in exceptions.items() if count
    ]


def _float_rules(layers: Mapping[str, Layer]) -> list[Rule]:
    """Rules for what can't be quantized or what nothing reaches."""
    kept = {name: layer for name, layer in layers.items() if layer.has_quantizers}
    reached = {name: layer for name, layer in kept.items() if layer.is_called}
    unreached = [name for name in kept if name not in reached]
    refused = {name: layer.refusal for name, layer in layers.items() if layer.refusal}
    types = _types_as_a_whole(refused, layers)
    by_type = [name for name in refused if layers[name].classes[0] in types]
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        if name not in by_type:
            by_reason.setdefault(reason, []).append(name)
    rules = [_type_rule(types, len(by_type))] if by_type else []
    rules += [_rule(f'In float: {reason}.', 'in float', _FLOAT, names, kept)
              for reason, names in by_reason.items()]  # yapf: disable
    why = 'In float: neither the forward pass nor the loss reaches them.'
    rules.append(_rule(why, 'in float, unreached', _FLOAT, unreached, reached))
    return [rule for rule in rules if rule.selectors]


def _type_rule(types: Collection[str], count: int) -> Rule:
    names = tuple(sorted(types))
    kinds = 'this kind' if len(names) == 1 else 'these kinds'
    why = f"In float: layers of {kinds} can't be quantized."
    return Rule(why, f'in float ({", ".join(names)})', _FLOAT, module_types=names, count=count)


def _types_as_a_whole(refused: Mapping[str, str], layers: Mapping[str, Layer]) -> set[str]:
    """Classes of refused layers of which no other layer, or one derived from them, is quantized."""
    types = {layers[name].classes[0] for name in refused}
    return types - {each for layer in layers.values() if not layer.refusal
                    for each in layer.classes}  # yapf: disable


def _rule(why: str, what: str, change: dict, names: Collection[str],
          others: Collection[str]) -> Rule:
    patterns = patterns_for(names, [*names, *others])
    return Rule(why, what, change, tuple(patterns), count=len(names))
