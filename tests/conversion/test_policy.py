"""Rules by module name: what wins over what, and what is refused."""
from __future__ import annotations

import pytest

from mmaqd.conversion import QuantizationPolicy

NAMES = ['stem', 'stage.0.conv', 'stage.1.conv', 'head.cls', 'head.reg']
WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)


def assign(*rules: dict) -> dict:
    return QuantizationPolicy(WEIGHT, INPUT, rules).assign(NAMES)


def test_defaults_go_to_every_name():
    assert list(assign()) == NAMES
    assert all(each.weight_quantizer == WEIGHT for each in assign().values())
    assert all(each.input_quantizer == INPUT for each in assign().values())


def test_nothing_asked_for_leaves_everything_in_float():
    assert all(each.is_float for each in QuantizationPolicy().assign(NAMES).values())


def test_keys_of_a_rule_override_those_of_the_default():
    assigned = assign(dict(pattern='head.*', weight_quantizer=dict(bit_width=8, normalize=False)))
    assert assigned['head.cls'].weight_quantizer == dict(
        type='mmaqd.LIQWeightQuantizer', bit_width=8, normalize=False)
    assert assigned['head.cls'].input_quantizer == INPUT, 'a role that is not named stays'
    assert assigned['stem'].weight_quantizer == WEIGHT
    assert WEIGHT['bit_width'] == 4, 'the default itself is not changed'


def test_a_type_replaces_the_default_whole():
    other = dict(type='mmaqd.LIQWeightQuantizer', bit_width=2)
    policy = QuantizationPolicy(
        dict(WEIGHT, axis=0), INPUT, [dict(pattern='stem', weight_quantizer=other)])
    assert policy.assign(NAMES)['stem'].weight_quantizer == other


def test_later_rules_win_key_by_key():
    assigned = assign(
        dict(pattern='head.*', weight_quantizer=dict(bit_width=8, normalize=False)),
        dict(pattern='head.cls', weight_quantizer=dict(bit_width=6)))
    assert assigned['head.cls'].weight_quantizer == dict(WEIGHT, bit_width=6, normalize=False)
    assert assigned['head.reg'].weight_quantizer == dict(WEIGHT, bit_width=8, normalize=False)


@pytest.mark.parametrize('pattern, matched', [
    pytest.param('stage.*', {'stage.0.conv', 'stage.1.conv'}, id='star-crosses-dots'),
    pytest.param('*.conv', {'stage.0.conv', 'stage.1.conv'}, id='leading-star'),
    pytest.param('stage.?.conv', {'stage.0.conv', 'stage.1.conv'}, id='question-mark'),
    pytest.param('stage.[1-3].conv', {'stage.1.conv'}, id='character-range'),
    pytest.param('head.cls', {'head.cls'}, id='exact'),
])
def test_patterns_are_shell_patterns_over_the_whole_name(pattern, matched):
    assigned = assign(dict(pattern=pattern, weight_quantizer=None, input_quantizer=None))
    assert {name for name, each in assigned.items() if each.is_float} == matched


def test_none_makes_one_role_float():
    stem = assign(dict(pattern='stem', input_quantizer=None))['stem']
    assert stem.input_quantizer is None and stem.weight_quantizer == WEIGHT
    assert not stem.is_float


@pytest.mark.parametrize('pattern', ['stam', 'conv', 'STEM', 'stage'])
def test_pattern_without_a_match_is_an_error(pattern):
    with pytest.raises(ValueError, match=f"'{pattern}' matches no module") as error:
        assign(dict(pattern=pattern, weight_quantizer=None))
    assert all(name in str(error.value) for name in NAMES), 'the candidates are listed'


def test_candidates_of_a_large_model_are_abridged():
    policy = QuantizationPolicy(WEIGHT, INPUT, [dict(pattern='x', input_quantizer=None)])
    with pytest.raises(ValueError, match=r'layer\.11, \.\.\. \(40 in all\)') as error:
        policy.assign([f'layer.{number}' for number in range(40)])
    assert 'layer.12' not in str(error.value)


def test_changing_a_quantizer_that_is_not_there_asks_for_its_type():
    rules = [
        dict(pattern='head.*', weight_quantizer=None),
        dict(pattern='head.cls', weight_quantizer=dict(bit_width=8))
    ]
    with pytest.raises(ValueError, match=r"'head\.cls'.*has none; give its type"):
        assign(*rules)
    rules[1]['weight_quantizer'] = dict(WEIGHT, bit_width=8)
    assert assign(*rules)['head.cls'].weight_quantizer['bit_width'] == 8


@pytest.mark.parametrize('rule, message', [
    pytest.param(dict(weight_quantizer=None), 'a rule is a dict with a pattern', id='no-pattern'),
    pytest.param(dict(pattern=3, weight_quantizer=None), 'pattern', id='pattern-is-a-number'),
    pytest.param('head.*', 'a rule is a dict', id='not-a-dict'),
    pytest.param(dict(pattern='stem'), 'says nothing', id='no-effect'),
    pytest.param(
        dict(pattern='stem', weights=dict(bit_width=8)),
        'unknown key.*weights.*known are',
        id='unknown-key'),
])
def test_malformed_rule_is_refused_with_its_position(rule, message):
    fine = dict(pattern='stem', input_quantizer=None)
    with pytest.raises(ValueError, match=rf'rules\[1\].*{message}'):
        QuantizationPolicy(WEIGHT, INPUT, [fine, rule])


TYPES = {
    'stem': ['Conv2d', '_ConvNd'],
    'stage.0.conv': ['Conv2d', '_ConvNd'],
    'stage.1.conv': ['ConvTranspose2d', '_ConvNd'],
    'head.cls': ['Linear'],
    'head.reg': ['FancyLinear', 'Linear'],
}


@pytest.mark.parametrize('rule, matched', [
    pytest.param(dict(module_type='Linear'), {'head.cls', 'head.reg'}, id='derived-ones-too'),
    pytest.param(
        dict(module_type=['FancyLinear', 'ConvTranspose2d']), {'head.reg', 'stage.1.conv'},
        id='several'),
    pytest.param(
        dict(module_type='_ConvNd', pattern='stage.*'), {'stage.0.conv', 'stage.1.conv'},
        id='type-and-pattern'),
])
def test_rules_by_type(rule, matched):
    policy = QuantizationPolicy(WEIGHT, INPUT,
                                [dict(rule, weight_quantizer=None, input_quantizer=None)])
    assigned = policy.assign(NAMES, TYPES)
    assert {name for name, each in assigned.items() if each.is_float} == matched


def test_a_type_without_a_match_is_an_error():
    rule = dict(module_type='LSTM', weight_quantizer=None)
    with pytest.raises(ValueError, match="module_type 'LSTM' matches no module"):
        QuantizationPolicy(WEIGHT, INPUT, [rule]).assign(NAMES, TYPES)


@pytest.mark.parametrize('types', [3, [], [None], None], ids=repr)
def test_malformed_types_are_refused(types):
    with pytest.raises(ValueError, match=r'rules\[0\].*module_type'):
        QuantizationPolicy(WEIGHT, INPUT, [dict(module_type=types, weight_quantizer=None)])
