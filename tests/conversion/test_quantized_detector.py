"""The config type: what is built, from where, and what it logs."""
from __future__ import annotations

import pickle
from copy import deepcopy
from importlib import import_module

import pytest
import torch
from mmdet.models import ATSS, FCOS, RetinaNet
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from mmaqd.conversion import format_table, quantization_table
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS
from tests.helpers.detector import (DETECTORS, build, build_calibrated, loss, make_batch, model_cfg,
                                    raw_outputs)

UPSTREAM = dict(RetinaNet=RetinaNet, FCOS=FCOS, ATSS=ATSS)


@pytest.fixture(scope='module', params=DETECTORS)
def calibrated(request) -> torch.nn.Module:
    return build_calibrated(request.param)


@pytest.mark.parametrize('detector', DETECTORS)
def test_the_upstream_class_itself_is_returned(detector):
    assert type(build(model_cfg(detector, 4))) is UPSTREAM[detector]


@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmaqd'])
def test_it_builds_in_any_default_scope(scope, monkeypatch):
    if scope is None:  # an earlier run in this process may have left one
        monkeypatch.setattr(DefaultScope, 'get_current_instance', lambda: None)
    cfg = model_cfg('RetinaNet', 4)
    # Without mmdet's scope these two need their prefix in an ordinary detector as well.
    cfg['data_preprocessor']['type'] = 'mmdet.DetDataPreprocessor'
    cfg['detector'] = 'mmdet.RetinaNet'
    model = build(cfg, scope=scope)
    assert type(model) is RetinaNet
    assert isinstance(model.backbone.conv1, QuantConv2d)


def test_flat_config_can_be_overridden_from_the_command_line():
    cfg = Config(dict(model=model_cfg('RetinaNet', 4)))
    cfg.merge_from_dict({
        'model.bbox_head.num_classes': 7,
        'model.quantization.weight_quantizer.bit_width': 2,
        'model.quantization.rules.1.weight_quantizer.bit_width': 5,
    })
    model = build(cfg.model)
    assert model.bbox_head.retina_cls.out_channels == 7
    assert model.bbox_head.retina_cls.weight_quantizer.bit_width == 5
    assert model.backbone.layer1[0].conv1.weight_quantizer.bit_width == 2


def test_building_leaves_the_config_as_it_was():
    cfg = Config(dict(model=model_cfg('FCOS', 4)))
    before = cfg.to_dict()
    build(cfg.model)
    build(cfg.model)
    assert cfg.to_dict() == before


def test_unknown_key_of_the_block_is_an_error():
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['activation_quantizer'] = cfg['quantization'].pop('input_quantizer')
    with pytest.raises(
            ValueError,
            match=r'quantization: unknown key\(s\) activation_quantizer.*'
            'known are weight_quantizer, input_quantizer, rules'):
        build(cfg)


def test_unknown_detector_is_an_error():
    with pytest.raises(KeyError, match='RetinaNett is not in the'):
        build(dict(model_cfg('RetinaNet', 4), detector='RetinaNett'))


def test_the_table_is_logged_once(monkeypatch):
    records = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handle', lambda record: records.append(record.getMessage()))
    model = build(model_cfg('RetinaNet', 4))
    table = format_table(quantization_table(model))
    assert len([message for message in records if table in message]) == 1


def test_all_parameters_get_finite_gradients(calibrated):
    model = deepcopy(calibrated).train()
    loss(model, make_batch()).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    of_intervals = [grad for name, grad in grads.items() if name.endswith('interval')]
    assert sum(bool(grad.any()) for grad in of_intervals) > len(of_intervals) / 2


def test_predictions_have_the_upstream_form(calibrated):
    for prediction in calibrated.eval().test_step(make_batch()):
        assert prediction.pred_instances.bboxes.shape[1:] == (4, )
        assert torch.isfinite(prediction.pred_instances.bboxes).all()


@pytest.mark.parametrize('copy', [
    pytest.param(deepcopy, id='deepcopy'),
    pytest.param(lambda model: pickle.loads(pickle.dumps(model)), id='pickle'),
])
def test_copies_predict_the_same_and_are_independent(calibrated, copy):
    model = calibrated.eval()
    twin = copy(model)
    expected = raw_outputs(model, make_batch())
    assert all(map(torch.equal, raw_outputs(twin, make_batch()), expected))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert all(map(torch.equal, raw_outputs(model, make_batch()), expected))
    assert not all(map(torch.equal, raw_outputs(twin, make_batch()), expected))


def test_copies_still_refuse_a_foreign_checkpoint(calibrated):
    with pytest.raises(ValueError, match='does not belong to this'):
        deepcopy(calibrated).load_state_dict({'weight': torch.zeros(1)})


def test_bfloat16_autocast_trains(calibrated):
    # 128 pixels make P6 2 x 2: torch's bfloat16 conv with stride 2 leaves gradients of the weights
    # uninitialized for an input of 1 x 1 on the CPU.
    model, batch = deepcopy(calibrated).train(), make_batch(size=128)
    with torch.autocast('cpu', torch.bfloat16):
        total = loss(model, batch)
    total.backward()
    exact = loss(deepcopy(calibrated).train(), batch)
    torch.testing.assert_close(total.float(), exact, rtol=0.1, atol=0.0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_calibration_leaves_weights_statistics_and_mode_alone():
    model = build(model_cfg('RetinaNet', 4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert calibrate(model, [make_batch()]) > 0
    changed = {
        key.rsplit('.', 1)[1]
        for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {'interval', 'initialized'}
    assert all(module.training for module in model.modules())


def test_registered_under_its_scoped_name():
    assert MODELS.get('mmaqd.QuantizedDetector') is MODELS.get('QuantizedDetector')


@pytest.mark.parametrize('norm_eval, normalize, warns', [(True, True, True), (False, True, False),
                                                         (True, False, False)])
def test_frozen_bn_and_weights_of_another_scale_are_said(norm_eval, normalize, warns, monkeypatch):
    said = []
    module = import_module('mmaqd.conversion.quantized_detector')
    monkeypatch.setattr(module, 'print_log', lambda text, *_, **__: said.append(text))
    cfg = model_cfg('RetinaNet', 4)
    cfg['backbone']['norm_eval'] = norm_eval
    cfg['quantization']['weight_quantizer']['normalize'] = normalize
    model = build(cfg)
    assert any('keep their statistics while training' in text for text in said) is warns
    assert model.backbone.bn1.training, 'modes stay as they are'
