"""Mistaken configs: each is an error that names the key, or right."""
from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from mmaqd.registry import HOOKS
from tests.helpers.detector import build, model_cfg

WEIGHTS = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUTS = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)
PLAIN = dict(normalize=False)
Q = 'model.quantization'

# A change of the model's config, and what the error names.
MISTAKES: dict[str, tuple[dict, str]] = {
    'detector: missing': (dict(detector=None), r'model\.detector'),
    'detector: unknown': (dict(detector='RetinaNett'), r'model\.detector: RetinaNett is not'),
    'detector: a number': (dict(detector=3), r'model\.detector'),
    'detector: ourselves': (dict(detector='mmaqd.QuantizedDetector'), r'model\.detector'),
    'block: None': (dict(quantization=None), rf'{Q} must be a dict'),
    'block: a number': (dict(quantization=4), rf'{Q} must be a dict'),
    'block: a list': (dict(quantization=[WEIGHTS]), rf'{Q} must be a dict'),
    'block: empty': (dict(quantization=dict(_delete_=True)), f'{Q} quantizes nothing'),
    'block: rules only':
    (dict(quantization=dict(_delete_=True, rules=[])), f'{Q} quantizes nothing'),
    'block: None twice':
    (dict(quantization=dict(_delete_=True, weight_quantizer=None, input_quantizer=None)),
     f'{Q} quantizes nothing'),
    'block: all by a rule in float': (dict(
        quantization=dict(
            _delete_=True,
            weight_quantizer=WEIGHTS,
            rules=[dict(pattern='*', weight_quantizer=None)])), f'{Q} quantizes nothing'),
    'block: unknown key': (dict(quantization=dict(activations=INPUTS)), 'unknown key.*activations'),
    'block: bits in the block': (dict(quantization=dict(bit_width=4)), 'unknown key.*bit_width'),
}


def _role(role: str, value: Any) -> dict:
    return dict(quantization={f'{role}_quantizer': value})


for _name, _value in (('a number', 4), ('a string', 'LIQ'), ('True', True), ('a list', [4])):
    for _kind in ('weight', 'input'):
        MISTAKES[f'{_kind}s: {_name}'] = (_role(_kind, _value), rf'{Q}\.{_kind}_quantizer must be')
for _kind, _other in (('weight', INPUTS), ('input', WEIGHTS)):
    _key = rf'{Q}\.{_kind}_quantizer'
    MISTAKES.update({
        f'{_kind}s: of the other kind': (_role(_kind, dict(_other)), rf'{_key}: a LIQ\w+ is not'),
        f'{_kind}s: of another method, other kind':
        (_role(_kind, dict(type=_other['type'].replace('LIQ', 'LSQ'), bit_width=4,
                           _delete_=True)), f'{_key}: a LSQ'),
        f'{_kind}s: no type': (_role(_kind, dict(bit_width=4, _delete_=True)), rf'{_key}\.type'),
        f'{_kind}s: unknown type': (_role(_kind, dict(type='mmaqd.LIQ')), rf'{_key}\.type'),
        f'{_kind}s: type of a layer': (_role(_kind, dict(type='Conv2d')), rf'{_key}\.type'),
        f'{_kind}s: type None': (_role(_kind, dict(type=None)), rf'{_key}\.type'),
        f'{_kind}s: bits as a string': (_role(_kind, dict(bit_width='four')), 'bit_width'),
        f'{_kind}s: no bits':
        (_role(_kind, dict(type=dict(weight=WEIGHTS, input=INPUTS)[_kind]['type'],
                           _delete_=True)), 'bit_width'),
        f'{_kind}s: 32 bits': (_role(_kind, dict(bit_width=32)), 'bit_width'),
        f'{_kind}s: unknown key': (_role(_kind, dict(bits=4)), 'unknown key.*bits'),
        f'{_kind}s: unknown start': (_role(_kind, dict(start='mean')), 'start must be'),
        f'{_kind}s: start no string': (_role(_kind, dict(start=1)), rf'{_key}\.start must be str'),
        f'{_kind}s: start_value a string':
        (_role(_kind, dict(start_value='1')), rf'{_key}\.start_value must be float'),
        f'{_kind}s: start_value infinite':
        (_role(_kind, dict(start_value=float('inf'))), rf'{_key}\.start_value must be float'),
        f'{_kind}s: start_value zero': (_role(_kind, dict(start_value=0.0)), 'start_value'),
        f'{_kind}s: a switch as a string': (_role(_kind, dict(gradient_factor='yes')),
                                            rf'{_key}\.gradient_factor must be bool'),
    })
MISTAKES.update({
    'weights: normalize as a string':
    (_role('weight', dict(normalize='False')), rf'{Q}\.weight_quantizer\.normalize must be bool'),
    'weights: axis False': (_role('weight', dict(axis=False)), r'weight_quantizer\.axis must be'),
    'weights: axis 1': (_role('weight', dict(axis=1)), 'axis must be None'),
    'weights: own intervals for levels':
    (_role('weight',
           dict(type='mmaqd.MultiLevelQuantizer', num_levels=5, quantizer=INPUTS, _delete_=True)),
     rf'{Q}\.weight_quantizer: a MultiLevelQuantizer is not for weights'),
    'inputs: levels of weights':
    (_role('input',
           dict(type='mmaqd.MultiLevelQuantizer', num_levels=5, quantizer=WEIGHTS,
                _delete_=True)), rf'{Q}\.input_quantizer\.quantizer: a LIQWeightQuantizer is not'),
    'rules: a dict': (dict(quantization=dict(rules=dict(pattern='*', weight_quantizer=None))),
                      rf'{Q}\.rules must be a list'),
    'rules: a string': (dict(quantization=dict(rules='*')), rf'{Q}\.rules must be a list'),
})
for _name, _rule, _message in (
    ('a string', '*', 'a rule is a dict with a pattern'),
    ('no pattern', dict(weight_quantizer=None), 'a rule is a dict with a pattern'),
    ('a pattern that is a list', dict(pattern=['*'], weight_quantizer=None), 'pattern'),
    ('says nothing', dict(pattern='*'), 'says nothing'),
    ('unknown key', dict(pattern='*', bits=4), 'unknown key.*bits'),
    ('matches nothing', dict(pattern='stem.*', weight_quantizer=None), 'matches no module'),
    ('a number for weights', dict(pattern='neck.*', weight_quantizer=8), r'rules\[0\].*must be'),
    ('False for inputs', dict(pattern='neck.*', input_quantizer=False), r'rules\[0\].*must be'),
    ('the other kind', dict(pattern='neck.*', input_quantizer=WEIGHTS), r'rules\[0\].*is not for'),
    ('a switch as a number', dict(pattern='neck.*', weight_quantizer=dict(normalize=2)),
     r'rules\[0\]\.weight_quantizer\.normalize must be bool'),
):
    MISTAKES[f'rules: {_name}'] = (dict(quantization=dict(rules=[_rule])), _message)
MISTAKES.update({
    f'distillation: {_name}': (dict(distillation=_block), r'model\.distillation')
    for _name, _block in {
        'a number':
        3,
        'a path':
        'teacher.pth',
        'empty':
        dict(),
        'no losses':
        dict(checkpoint='a.pth'),
        'unknown key':
        dict(checkpoint='a.pth', loss=[]),
        'losses a dict':
        dict(checkpoint='a.pth', losses=dict(type='mmaqd.FeatureDistillationLoss', module='neck')),
        'losses of strings':
        dict(checkpoint='a.pth', losses=['neck']),
        'checkpoint a number':
        dict(checkpoint=3, losses=[dict(type='mmaqd.FeatureDistillationLoss', module='neck')]),
        'teacher a list':
        dict(
            checkpoint='a.pth',
            teacher=[],
            losses=dict(type='mmaqd.FeatureDistillationLoss', module='neck')),
    }.items()
})
MISTAKES['norm: levels in a backbone'] = (dict(
    backbone=dict(norm_cfg=dict(_delete_=True, type='mmaqd.MultiLevelBN', num_levels=5))),
                                          r'backbone\.bn1: .*in a backbone or neck')
MISTAKES['norm: levels in a plain head'] = (dict(bbox_head=dict(type='RetinaHead')),
                                            r'bbox_head\..*mmaqd\.MultiLevelHead')


def changed(changes: dict) -> dict:
    """The model's config with values merged into its dicts and put in place of everything else."""
    model = Config(dict(model=model_cfg('RetinaNet', 4))).model
    _merge(model, changes)
    return model


def _merge(old: dict, changes: dict) -> None:
    if changes.get('_delete_'):
        old.clear()
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        elif key != '_delete_':
            old[key] = value


@pytest.mark.parametrize('changes, names', MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_when_the_model_is_built(changes, names):
    with pytest.raises((ValueError, TypeError, KeyError), match=names):
        build(changed(changes))


def test_there_are_sixty():
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize('changes', [
    dict(quantization=dict(weight_quantizer=PLAIN, input_quantizer=None, rules=None)),
    dict(quantization=dict(weight_quantizer=PLAIN, rules=())),
    dict(quantization=dict(weight_quantizer=None, rules=None)),
    dict(quantization=dict(weight_quantizer=dict(start_value=2))),
    dict(quantization=dict(weight_quantizer=dict(axis=0))),
    dict(distillation=None),
])
def test_what_is_right_is_built(changes):
    build(changed(changes))


@pytest.mark.parametrize('hook, arguments', [
    ('InitializeIntervalsHook', dict(num_batches=0)),
    ('InitializeIntervalsHook', dict(num_batches='4')),
    ('InitializeIntervalsHook', dict(num_batches=None)),
    ('InitializeIntervalsHook', dict(num_batches=2.5)),
    ('LogIntervalsHook', dict(interval=0)),
    ('LogIntervalsHook', dict(interval='50')),
    ('ReestimateBNHook', dict(num_batches=-1)),
    ('ReestimateBNHook', dict(interval='1')),
    ('ReestimateBNHook', dict(num_batches=True)),
])
def test_numbers_of_the_hooks(hook, arguments):
    name, = arguments
    with pytest.raises(ValueError, match=f'{hook}: {name} must be at least 1, but got'):
        HOOKS.build(dict(type=f'mmaqd.{hook}', **arguments))
