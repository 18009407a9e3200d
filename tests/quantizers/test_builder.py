"""Quantizers from configs, and the errors of a wrong config."""
from __future__ import annotations

import re

import pytest
from torch import nn

from mmaqd.quantizers import LIQActivationQuantizer, LIQWeightQuantizer, build_quantizer
from mmaqd.registry import QUANTIZERS


@pytest.mark.parametrize(
    'type_', ['mmaqd.LIQWeightQuantizer', 'LIQWeightQuantizer', LIQWeightQuantizer],
    ids=['scoped', 'plain', 'class'])
def test_arguments_reach_the_quantizer(type_) -> None:
    quantizer = build_quantizer(dict(type=type_, bit_width=3, normalize=False))
    assert type(quantizer) is LIQWeightQuantizer
    assert (quantizer.bit_width, quantizer.kernel.normalize) == (3, False)


def test_registry_builds_them_too() -> None:
    quantizer = QUANTIZERS.build(dict(type='mmaqd.LIQActivationQuantizer', bit_width=5))
    assert type(quantizer) is LIQActivationQuantizer
    assert quantizer.bit_width == 5


def test_config_is_left_as_it_was() -> None:
    cfg = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, _scope_='mmaqd')
    build_quantizer(cfg)
    assert cfg == dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, _scope_='mmaqd')


def test_none_and_a_quantizer_are_returned() -> None:
    quantizer = LIQActivationQuantizer(4)
    assert build_quantizer(None) is None
    assert build_quantizer(quantizer, num_channels=3) is quantizer


def test_context_goes_to_quantizers_that_take_it() -> None:
    weight = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, axis=0)
    assert build_quantizer(weight, num_channels=6).interval.shape == (6, )
    assert build_quantizer({**weight, 'num_channels': 3}, num_channels=6).interval.shape == (3, )
    inputs = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)
    assert build_quantizer(inputs, num_channels=6).interval.shape == ()


def test_unknown_key_is_named_beside_the_known_ones() -> None:
    cfg = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, bits=4, symmetric=True)
    with pytest.raises(
            TypeError,
            match='LIQActivationQuantizer got unknown key.* bits, symmetric; '
            'it knows bit_width, start'):
        build_quantizer(cfg)


@pytest.mark.parametrize(
    'cfg', [
        dict(bit_width=4),
        dict(type='mmaqd.LIQWeightQuantiser', bit_width=4),
        dict(type='LSQPlus', bit_width=4),
        dict(type='nowhere.LIQWeightQuantizer', bit_width=4),
        dict(type=4, bit_width=4),
    ],
    ids=['missing', 'misspelled', 'unknown', 'other_scope', 'number'])
def test_wrong_type_lists_the_types_there_are(cfg: dict) -> None:
    expected = 'mmaqd.LIQActivationQuantizer, mmaqd.LIQWeightQuantizer'
    with pytest.raises(KeyError, match=f'{expected}.* but got {cfg.get("type")!r}'):
        build_quantizer(cfg)


def test_missing_bit_width_is_named() -> None:
    with pytest.raises(TypeError, match='bit_width'):
        build_quantizer(dict(type='mmaqd.LIQWeightQuantizer'))


def test_any_class_can_be_a_quantizer() -> None:
    assert isinstance(build_quantizer(dict(type=nn.Identity)), nn.Identity)


@pytest.mark.parametrize(
    'cfg', ['LIQWeightQuantizer', 4, ['mmaqd.LIQWeightQuantizer']], ids=['name', 'number', 'list'])
def test_what_is_no_config_is_shown(cfg) -> None:
    with pytest.raises(TypeError, match=r'given as dict\(type=.*but got ' + re.escape(repr(cfg))):
        build_quantizer(cfg)
