"""Which checkpoints a low-bit detector takes, through torch and through MMEngine."""
from __future__ import annotations

from typing import Callable

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from mmaqd.checkpoints import CheckpointError
from mmaqd.quantizers import CheckpointMismatchError, Quantizer, UninitializedIntervalError
from tests.helpers.detector import (LEVELS, build, build_calibrated, make_batch, model_cfg,
                                    raw_outputs)


def _by_torch(model: nn.Module, state: dict, tmp_path) -> None:
    model.load_state_dict(state)


def _by_mmengine(model: nn.Module, state: dict, tmp_path) -> None:
    path = str(tmp_path / 'checkpoint.pth')
    torch.save(dict(state_dict=state), path)
    load_checkpoint(model, path, map_location='cpu')


@pytest.fixture(params=[
    pytest.param(_by_torch, id='torch'),
    pytest.param(_by_mmengine, id='mmengine'),
])
def load(request, tmp_path) -> Callable[[nn.Module, dict], None]:
    return lambda model, state: request.param(model, state, tmp_path)


@pytest.fixture(scope='module')
def low_bit_state() -> dict:
    return trained_like(build_calibrated('RetinaNet', 4)).state_dict()


def trained_like(model: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value that no initialization gives."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.mul_(0.5 + torch.rand(value.shape, generator=generator))
    return model


def without_levels(state: dict) -> dict:
    """The state of the head with one BN that all levels share."""
    shared = {}
    for key, value in state.items():
        head, _, rest = key.partition('.bn.')
        level, _, name = rest.partition('.')
        if not key.startswith('bbox_head') or not level.isdigit():
            shared[key] = value
        elif level == '0':
            shared[f'{head}.bn.{name}'] = value
    return shared


def assert_refused(load: Callable, model: nn.Module, state: dict, message: str) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match=message):
        load(model, state)
    assert all(torch.equal(value, before[key])
               for key, value in model.state_dict().items()), 'a refused checkpoint changes nothing'


def test_round_trip_is_exact(load, low_bit_state):
    model = trained_like(build_calibrated('RetinaNet', 4)).eval()
    expected = raw_outputs(model, make_batch())
    fresh = build(model_cfg('RetinaNet', 4), seed=9).eval()
    load(fresh, low_bit_state)
    assert all(map(torch.equal, raw_outputs(fresh, make_batch()), expected))
    assert fresh.state_dict().keys() == low_bit_state.keys()


def test_float_checkpoint_brings_the_weights_and_leaves_the_intervals_open(load):
    state = trained_like(build(model_cfg('RetinaNet'), seed=5)).state_dict()
    model = build(model_cfg('RetinaNet', 4))
    load(model, state)
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())
    assert not any(bool(value) for key, value in own.items() if key.endswith('.initialized'))
    with pytest.raises(UninitializedIntervalError, match='backbone'):
        raw_outputs(model.eval(), make_batch())


def test_float_checkpoint_does_not_reset_learned_intervals(load):
    model = build_calibrated('RetinaNet', 4)
    before = {
        key: value.clone()
        for key, value in model.state_dict().items() if '_quantizer.' in key
    }
    load(model, build(model_cfg('RetinaNet'), seed=5).state_dict())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_float_checkpoint_of_a_model_with_a_layer_of_two_names(load):

    def shared(bits: int | None) -> nn.Module:
        model = build(model_cfg('RetinaNet', bits))
        model.bbox_head.reg_convs[0].conv = model.bbox_head.cls_convs[0].conv
        return model

    given, model = trained_like(shared(None)).state_dict(), shared(4)
    load(model, given)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in given.items())
    state.pop('bbox_head.reg_convs.0.conv.weight_quantizer.interval')
    assert_refused(load, model, state, 'it lacks bbox_head.reg_convs.0.conv.weight_quantizer')


def test_float_checkpoint_with_one_bn_for_all_levels(load):
    cfg = model_cfg('RetinaNet', norm_cfg=dict(type='BN'))
    state = trained_like(build(cfg, seed=5)).state_dict()
    model = build(model_cfg('RetinaNet', 4))
    load(model, state)
    for tower in (model.bbox_head.cls_convs, model.bbox_head.reg_convs):
        assert len(tower[0].bn) == LEVELS
        for level in tower[0].bn:
            for name, value in level.state_dict().items():
                prefix = 'cls' if tower is model.bbox_head.cls_convs else 'reg'
                assert torch.equal(value, state[f'bbox_head.{prefix}_convs.0.bn.{name}'])


def test_low_bit_checkpoint_with_one_bn_for_all_levels(load, low_bit_state):
    model = build(model_cfg('RetinaNet', 4), seed=9)
    load(model, without_levels(low_bit_state))
    conv = model.bbox_head.cls_convs[0]
    first = low_bit_state['bbox_head.cls_convs.0.bn.0.running_mean']
    assert all(torch.equal(level.running_mean, first) for level in conv.bn)
    assert all(bool(each.initialized) for each in model.modules() if isinstance(each, Quantizer))


@pytest.mark.parametrize('bits', [2, 3, 8])
def test_checkpoint_of_other_bits(load, low_bit_state, bits):
    model = build(model_cfg('RetinaNet', bits))
    with pytest.raises(CheckpointMismatchError, match=f'4 bits.*has one of {bits} bits'):
        load(model, low_bit_state)


@pytest.mark.parametrize('detector', ['FCOS', 'ATSS'])
@pytest.mark.parametrize('bits', [None, 4], ids=['float', 'w4a4'])
def test_checkpoint_of_another_detector(load, detector, bits):
    state = build(model_cfg(detector, bits)).state_dict()
    assert_refused(
        load, build(model_cfg('RetinaNet', 4)), state,
        'does not belong to this RetinaNet: it lacks bbox_head.retina_cls.*'
        'it has also bbox_head')


def test_checkpoint_of_another_granularity_names_the_option(load, low_bit_state):
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['weight_quantizer']['axis'] = 0
    assert_refused(load, build(cfg), low_bit_state,
                   r'backbone.conv1.weight_quantizer: the interval .* shape \(\).*Set axis \(None')


@pytest.mark.parametrize('bits', [None, 4], ids=['float', 'w4a4'])
def test_checkpoint_of_other_classes(load, bits):
    state = build(model_cfg('RetinaNet', bits, num_classes=7)).state_dict()
    assert_refused(load, build(model_cfg('RetinaNet', 4)), state,
                   'in another shape bbox_head.retina_cls.weight, bbox_head.retina_cls.bias')


def test_checkpoint_of_other_levels(load):
    norm = dict(type='mmaqd.MultiLevelBN', num_levels=4)
    state = build(model_cfg('RetinaNet', norm_cfg=norm)).state_dict()
    assert_refused(load, build(model_cfg('RetinaNet', 4)), state,
                   r'lacks bbox_head.cls_convs.0.bn.4.weight')


def test_checkpoint_with_quantizers_where_the_model_has_none(load, low_bit_state):
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['rules'].append(
        dict(pattern='neck.*', weight_quantizer=None, input_quantizer=None))
    assert_refused(load, build(cfg), low_bit_state, r'has also neck\..*_quantizer')


def test_checkpoint_of_the_backbone_alone(load, low_bit_state):
    state = {key: value for key, value in low_bit_state.items() if key.startswith('backbone')}
    assert_refused(load, build(model_cfg('RetinaNet', 4)), state,
                   r'lacks neck.* and \d+ more. Use the config')


def test_states_of_norms_averaged_over_processes(low_bit_state):
    model = build(model_cfg('RetinaNet', 4))
    part = {key: value.float() + 0.5 for key, value in low_bit_state.items() if '.bn' in key}
    model.load_state_dict(part, strict=False)
    own = model.state_dict()
    assert any('num_batches_tracked' in key for key in part)
    assert all(torch.equal(own[key], value.to(own[key].dtype)) for key, value in part.items())
    with pytest.raises(CheckpointError, match='num_batches_tracked is of torch.float32'):
        model.load_state_dict({**low_bit_state, **part})


def test_a_part_with_a_count_that_is_no_tensor(low_bit_state):
    count = next(key for key in low_bit_state if key.endswith('num_batches_tracked'))
    with pytest.raises(CheckpointError, match=f'{count} is a float32, not a tensor'):
        build(model_cfg('RetinaNet', 4)).load_state_dict({count: np.float32(3)}, strict=False)


def test_empty_state(load):
    assert_refused(load, build(model_cfg('RetinaNet', 4)), {}, 'it lacks')


def test_inside_a_wrapper_only_its_own_part_is_looked_at(low_bit_state):
    wrapper = nn.ModuleDict(dict(detector=build(model_cfg('RetinaNet', 4)), other=nn.Linear(2, 2)))
    state = {f'detector.{key}': value for key, value in low_bit_state.items()}
    state.update({f'other.{key}': value for key, value in nn.Linear(2, 2).state_dict().items()})
    wrapper.load_state_dict(state)
    state['detector.extra'] = torch.zeros(1)
    with pytest.raises(CheckpointMismatchError, match='has also detector.extra'):
        wrapper.load_state_dict(state)
