"""Quantizers that are switched off for a while."""
from __future__ import annotations

import pytest
import torch

from mmaqd.analysis import group_layers, only_quantized, quantized_layers, stage_of
from mmaqd.quantizers import calibrate
from tests.helpers.detector import build, build_calibrated, make_batch, model_cfg, raw_outputs

NAMES = ['backbone.conv1', 'backbone.layer1.0.conv1', 'backbone.layer1.0.conv2', 'neck.a.conv']


def float_twin(model, normalized: bool):
    """The float detector with the weights of a 4-bit one, normalized where that normalizes them."""
    twin = build(model_cfg('RetinaNet')).eval()
    state = {name: value for name, value in model.state_dict().items() if 'quantizer' not in name}
    twin.load_state_dict(state)
    for name, conv in twin.named_modules():
        first_or_last = name == 'backbone.conv1' or name.startswith('bbox_head.retina_')
        if normalized and isinstance(conv, torch.nn.Conv2d) and not first_or_last:
            weight = conv.weight.data
            conv.weight.data = (weight - weight.mean()) / weight.std(correction=0)
    return twin


def assert_same_outputs(ours, others, **tolerance):
    for a, b in zip(ours, others):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize('keep_normalized', [True, False])
def test_nothing_quantized_is_the_float_model(keep_normalized):
    model = build_calibrated(bits=4).eval()
    with only_quantized(model, (), keep_normalized):
        outputs = raw_outputs(model, make_batch())
    expected = raw_outputs(float_twin(model, keep_normalized), make_batch())
    assert_same_outputs(outputs, expected, rtol=1e-4, atol=1e-4)


def test_all_quantized_is_the_model_itself():
    model = build_calibrated(bits=4).eval()
    expected = raw_outputs(model, make_batch())
    with only_quantized(model, quantized_layers(model)):
        assert_same_outputs(raw_outputs(model, make_batch()), expected, rtol=0, atol=0)


def test_one_layer_quantized_is_the_float_model_with_that_layer():
    model = build_calibrated(bits=2).eval()
    name = 'neck.fpn_convs.0.conv'
    with only_quantized(model, [name]):
        outputs = raw_outputs(model, make_batch())
    twin = float_twin(model, normalized=True)
    conv, quantized = twin.get_submodule(name), model.get_submodule(name)
    conv.weight.data = quantized.weight_quantizer(quantized.weight).detach()
    conv.register_forward_pre_hook(lambda _, inputs: quantized.input_quantizer(inputs[0]))
    assert_same_outputs(outputs, raw_outputs(twin, make_batch()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('weights', ['LIQ', 'DoReFa'])
def test_weights_that_evaluation_keeps_are_not_mixed_up(weights):
    cfg = model_cfg('RetinaNet', 2)
    if weights == 'DoReFa':
        cfg['quantization']['weight_quantizer'] = dict(
            type='mmaqd.DoReFaWeightQuantizer', bit_width=2)
        del cfg['quantization']['rules'][:]
        cfg['quantization']['rules'] = [dict(pattern='backbone.conv1', input_quantizer=None)]
    model = build(cfg)
    calibrate(model, [make_batch()])
    model.eval()
    before = raw_outputs(model, make_batch())
    for _ in range(2):
        with only_quantized(model, ()):
            floats = raw_outputs(model, make_batch())
        assert any(not torch.equal(a, b) for a, b in zip(floats, before))
        assert_same_outputs(raw_outputs(model, make_batch()), before, rtol=0, atol=0)


def test_the_model_is_as_before_after_an_error():
    model = build_calibrated(bits=4)
    keys, quantizers = list(model.state_dict()), quantized_layers(model).copy()
    parts = {
        name: (conv.weight_quantizer, conv.input_quantizer)
        for name, conv in quantizers.items()
    }
    with pytest.raises(RuntimeError), only_quantized(model, ()):
        raise RuntimeError
    assert list(model.state_dict()) == keys
    for name, conv in quantized_layers(model).items():
        assert (conv.weight_quantizer, conv.input_quantizer) == parts[name]


def test_unknown_layers_are_refused():
    model = build_calibrated(bits=4)
    with pytest.raises(ValueError, match='backbone.conv9: no quantized layers'):
        with only_quantized(model, ['backbone.conv9']):
            pass


def test_a_float_model_has_no_quantized_layers():
    model = build(model_cfg())
    with pytest.raises(ValueError, match='RetinaNet has no quantized layer'):
        quantized_layers(model)
    with only_quantized(model, ()):
        pass


def test_stages():
    assert [stage_of(name) for name in NAMES
            ] == ['backbone.conv1', 'backbone.layer1', 'backbone.layer1', 'neck.a']


def test_groups():
    assert group_layers(NAMES) == {
        'backbone.conv1': NAMES[:1],
        'backbone.layer1': NAMES[1:3],
        'neck.a': NAMES[3:]
    }
    assert group_layers(NAMES, by='layer') == {name: [name] for name in NAMES}
    assert group_layers(
        NAMES, patterns=['backbone.*', '*.conv1']) == {
            'backbone.*': NAMES[:3],
            '*.conv1': NAMES[:2]
        }


def test_bad_groups_are_refused():
    with pytest.raises(ValueError, match="'head.*' matches no quantized layer"):
        group_layers(NAMES, patterns=['neck.*', 'head.*'])
    with pytest.raises(ValueError, match="by 'layer', but got 'block'"):
        group_layers(NAMES, by='block')
