"""Distillation by config: where the teacher comes from, and which configs are refused."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models import RetinaNet
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmaqd.checkpoints import CheckpointError
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import CheckpointMismatchError, calibrate
from tests.helpers.detector import DETECTORS, build, loss, make_batch, model_cfg

FEATURES = dict(type='mmaqd.FeatureDistillationLoss', module='neck')
OUTPUTS = dict(type='mmaqd.OutputDistillationLoss')


def make_cfg(checkpoint: Any = 'float.pth', detector: str = 'RetinaNet', **block: Any) -> dict:
    cfg = model_cfg(detector, 4)
    cfg['distillation'] = dict(checkpoint=str(checkpoint), losses=[FEATURES, OUTPUTS], **block)
    return cfg


def save(model: nn.Module, path: Path) -> Path:
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def teacher_of(model: nn.Module) -> nn.Module:
    """The teacher that a training step builds."""
    calibrate(model, [make_batch()])
    loss(model.train(), make_batch())
    return model.distiller._teacher


@pytest.mark.parametrize('detector', DETECTORS)
def test_by_default_it_is_the_detector_without_quantization(detector, tmp_path):
    float_model = build(model_cfg(detector), seed=5)
    teacher = teacher_of(build(make_cfg(save(float_model, tmp_path / 'float.pth'), detector)))
    assert type(teacher) is type(float_model)
    assert not any(isinstance(module, QuantConv2d) for module in teacher.modules())
    expected = float_model.state_dict()
    torch.testing.assert_close(dict(teacher.state_dict()), dict(expected), rtol=0, atol=0)


def other_cfg() -> dict:
    """A float detector whose features and outputs have the student's shapes."""
    cfg = model_cfg('RetinaNet')
    cfg['backbone']['base_channels'] = 4
    cfg['neck']['in_channels'] = [4, 8, 16, 32]
    return cfg


@pytest.mark.parametrize('as_file', [True, False], ids=['file', 'model'])
def test_another_teacher_by_its_config(as_file, tmp_path):
    model = build(other_cfg(), seed=5)
    teacher = other_cfg()
    if as_file:
        teacher = str(tmp_path / 'teacher.py')
        Config(dict(model=other_cfg())).dump(teacher)
    student = build(make_cfg(save(model, tmp_path / 'float.pth'), teacher=teacher))
    found = teacher_of(student)
    assert found.backbone.conv1.out_channels == 4
    assert torch.equal(found.backbone.conv1.weight, model.backbone.conv1.weight)


def test_a_low_bit_teacher(tmp_path):
    cfg = model_cfg('RetinaNet', 8)
    teacher = build(cfg)
    calibrate(teacher, [make_batch()])
    path = save(teacher, tmp_path / 'w8a8.pth')
    found = teacher_of(build(make_cfg(path, teacher=cfg)))
    assert found.backbone.layer1[0].conv1.weight_quantizer.bit_width == 8


def test_a_teacher_with_one_bn_for_all_levels(tmp_path):
    state = build(model_cfg('RetinaNet', norm_cfg=dict(type='BN')), seed=5).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'float.pth')
    found = teacher_of(build(make_cfg(tmp_path / 'float.pth')))
    assert torch.equal(found.bbox_head.cls_convs[0].bn[3].weight,
                       state['bbox_head.cls_convs.0.bn.weight'])


def test_the_default_scope_of_the_config_is_that_of_the_teacher(tmp_path, monkeypatch):
    path = save(build(model_cfg('RetinaNet')), tmp_path / 'float.pth')
    student = build(make_cfg(path), scope='mmdet')
    calibrate(student, [make_batch()])
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
    loss(student.train(), make_batch())
    assert type(student.distiller._teacher) is RetinaNet


def test_building_it_draws_no_random_numbers(tmp_path):
    student = build(make_cfg(save(build(model_cfg('RetinaNet')), tmp_path / 'float.pth')))
    state = torch.get_rng_state()
    student.distiller.build_teacher()
    assert torch.equal(torch.get_rng_state(), state)


def test_neither_file_is_needed_to_build_and_to_predict():
    student = build(make_cfg('no/such.pth', teacher='no/such.py'))
    calibrate(student, [make_batch()])
    assert len(student.eval().test_step(make_batch())) == 2


def test_without_a_block_nothing_is_distilled():
    assert type(build(dict(model_cfg('RetinaNet', 4), distillation=None))) is RetinaNet


def test_building_leaves_the_config_as_it_was():
    cfg = Config(dict(model=make_cfg()))
    before = cfg.to_dict()
    build(cfg.model)
    assert cfg.to_dict() == before


def test_missing_checkpoint():
    with pytest.raises(
            FileNotFoundError,
            match="model.distillation.checkpoint: Checkpoint 'no/such.pth' does not"):
        build(make_cfg('no/such.pth')).distiller.build_teacher()


def test_damaged_checkpoint(tmp_path):
    (tmp_path / 'float.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match='model.distillation.checkpoint: .*is empty'):
        build(make_cfg(tmp_path / 'float.pth')).distiller.build_teacher()


@pytest.mark.parametrize('cfg', [
    pytest.param(model_cfg('FCOS'), id='another-detector'),
    pytest.param(model_cfg('RetinaNet', 4), id='low-bit'),
    pytest.param(model_cfg('RetinaNet', num_classes=7), id='other-classes'),
])
def test_checkpoint_of_another_model(cfg, tmp_path):
    student = build(make_cfg(save(build(cfg), tmp_path / 'other.pth')))
    with pytest.raises(
            CheckpointMismatchError,
            match='model.distillation.checkpoint: The '
            'checkpoint does not belong to this RetinaNet'):
        student.distiller.build_teacher()


def test_unknown_key():
    with pytest.raises(
            ValueError,
            match=r'model.distillation: unknown key\(s\) loss; known are '
            'teacher, checkpoint, losses'):
        build(make_cfg(loss=[FEATURES]))


@pytest.mark.parametrize('key', ['checkpoint', 'losses'])
@pytest.mark.parametrize('empty', [True, False], ids=['empty', 'missing'])
def test_missing_key(key, empty):
    cfg = make_cfg()
    if empty:
        cfg['distillation'][key] = None
    else:
        del cfg['distillation'][key]
    with pytest.raises(ValueError, match=f'model.distillation: {key} must be given'):
        build(cfg)


def test_unknown_loss():
    cfg = make_cfg()
    cfg['distillation']['losses'] = [dict(type='mmaqd.NoSuchLoss')]
    with pytest.raises(KeyError, match='NoSuchLoss is not in the'):
        build(cfg)
