"""Decisions on layers that were made up."""
from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from mmaqd.conversion.automatic.plan import METHODS, make_plan
from mmaqd.conversion.automatic.probing import Layer, Probe

FLOAT = dict(weight_quantizer=None, input_quantizer=None)


def conv(**seen) -> Layer:
    """A conv in front of a norm that trains, behind a ReLU."""
    known = dict(
        classes=['Conv2d', '_ConvNd'],
        has_quantizers=True,
        is_called=True,
        has_trained_norm=True,
        normalizes_unasked=True)
    return Layer(**{**known, **seen})


def predicting(**seen) -> Layer:
    return conv(predicts=True, has_trained_norm=False, normalizes_unasked=False, **seen)


def plan(layers: dict[str, Layer], bits: int = 4, method: str = 'liq') -> dict:
    return make_plan(Probe(layers), bits, METHODS[method]).block


def assigned(block: dict, name: str, role: str) -> dict | None:
    """What the patterns of a block give a layer."""
    result = block[role]
    for rule in block['rules']:
        if role in rule and fnmatchcase(name, rule.get('pattern', '')):
            change = rule[role]
            result = None if change is None else {**result, **change}
    return result


def test_a_detector_with_bn_and_relu_everywhere_gets_the_rules_of_the_readme():
    layers = {
        'backbone.conv1': conv(sees_image=True),
        'backbone.layer1.0.conv1': conv(),
        'bbox_head.convs.0': conv(),
        'bbox_head.retina_cls': predicting(),
        'bbox_head.retina_reg': predicting(),
    }
    assert plan(layers) == dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=[
            dict(
                pattern='backbone.conv1',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=None),
            dict(
                pattern='bbox_head.retina_*',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=dict(bit_width=8)),
        ])


def test_an_image_that_is_divided_gets_eight_signed_bits():
    block = plan({'stem': conv(sees_image=True, gets_integers=False), 'rest': conv()})
    assert assigned(block, 'stem', 'input_quantizer')['signed']
    assert assigned(block, 'stem', 'input_quantizer')['bit_width'] == 8


@pytest.mark.parametrize('signed, default', [(1, False), (4, True)])
def test_the_sign_that_needs_fewer_rules_is_the_default(signed, default):
    names = ['a.one', 'b.two', 'c.three', 'd.four', 'e.five']
    layers = {name: conv(can_be_negative=number < signed) for number, name in enumerate(names)}
    block = plan(layers)
    assert block['input_quantizer'].get('signed', False) is default
    assert len(block['rules']) == 1
    given = [assigned(block, name, 'input_quantizer').get('signed', False) for name in names]
    assert given == [number < signed for number in range(5)]


def test_without_a_norm_that_trains_weights_keep_their_scale():
    layers = {f'neck.{i}': conv(has_trained_norm=False) for i in range(3)}
    block = plan(layers)
    assert block['weight_quantizer']['normalize'] is False and not block['rules']


def test_a_bias_in_front_of_a_norm_is_no_reason_not_to_normalize():
    layers = {'a': conv(), 'b': conv(normalizes_unasked=False), 'c.d': conv(has_trained_norm=False)}
    block = plan(layers)
    assert 'normalize' not in block['weight_quantizer']
    assert {
        rule['pattern']: rule['weight_quantizer']
        for rule in block['rules']
    } == {
        'b': dict(normalize=True),
        'c.d': dict(normalize=False)
    }


@pytest.mark.parametrize('method, keys', [('lsq', {'signed'}), ('lsqplus', set())])
def test_only_liq_normalizes_and_only_lsqplus_takes_any_sign(method, keys):
    layers = {'a': conv(can_be_negative=True), 'b': conv(has_trained_norm=False)}
    block = plan(layers, method=method)
    changed = {key for rule in block['rules'] for role in FLOAT for key in rule.get(role, ())}
    assert changed == keys


def test_with_eight_bits_predictions_are_no_exception():
    layers = {'stem': conv(sees_image=True), 'body': conv(), 'head': predicting()}
    block = plan(layers, bits=8)
    assert [rule['pattern'] for rule in block['rules']] == ['stem']
    assert assigned(block, 'head', 'weight_quantizer')['bit_width'] == 8


def test_offsets_of_deformable_convs_get_eight_bits():
    block = plan({'a.conv': conv(), 'a.conv_offset': conv(can_be_negative=True)})
    assert assigned(block, 'a.conv_offset', 'weight_quantizer')['bit_width'] == 8
    assert assigned(block, 'a.conv_offset', 'input_quantizer')['signed']


def linear(reason: str = 'a Linear can\'t be quantized') -> Layer:
    return Layer(['Linear'], refusal=reason)


def test_a_kind_of_layer_that_is_refused_is_one_rule():
    block = plan({'a': conv(), 'b.fc': linear(), 'c.fc': linear()})
    assert block['rules'] == [dict(module_type=['Linear'], **FLOAT)]


def test_a_kind_of_which_some_are_quantized_is_left_out_by_name():
    refused = conv(refusal='its weight is read', has_quantizers=False)
    result = make_plan(Probe({'a': conv(), 'b.c': refused, 'b.d': refused}), 4, METHODS['liq'])
    assert result.block['rules'] == [dict(pattern='b.*', **FLOAT)]
    assert result.rules[0].why == 'In float: its weight is read.' and result.rules[0].count == 2


def test_a_base_class_does_not_take_derived_layers_with_it():
    derived = conv(classes=['QuantizableLinear', 'Linear'])
    block = plan({'a': derived, 'b': linear()})
    assert block['rules'] == [dict(pattern='b', **FLOAT)]


def test_what_nothing_reaches_stays_in_float():
    result = make_plan(
        Probe({
            'a': conv(),
            'b': conv(is_called=False, can_be_negative=True)
        }), 4, METHODS['liq'])
    assert result.block['rules'] == [dict(pattern='b', **FLOAT)]
    assert 'neither the forward pass nor the loss' in result.rules[0].why
