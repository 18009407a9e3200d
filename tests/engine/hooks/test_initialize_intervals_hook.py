"""Starting intervals from training batches: once, and only where there is none."""
from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Iterator

import pytest
import torch
from torch import nn

from mmaqd.engine import InitializeIntervalsHook
from mmaqd.quantizers import Quantizer
from mmaqd.registry import HOOKS
from tests.helpers.detector import build, build_calibrated, make_batch, model_cfg


class Loader:
    """A data loader that counts what is taken from it."""

    def __init__(self, length: int = 9) -> None:
        self.length = length
        self.started = self.taken = 0

    def __iter__(self) -> Iterator[dict]:
        self.started += 1
        return self._batches()

    def _batches(self) -> Iterator[dict]:
        for _ in range(self.length):
            self.taken += 1
            yield make_batch()


def make_runner(model: nn.Module,
                loader: Loader,
                load_from: str | None = 'float.pth') -> SimpleNamespace:
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        logger=logging.getLogger('test'),
        cfg=dict(load_from=load_from))


def quantizers(model: nn.Module) -> list[Quantizer]:
    return [module for module in model.modules() if isinstance(module, Quantizer)]


@pytest.fixture(scope='module')
def calibrated_state() -> dict:
    return build_calibrated('RetinaNet', 4).state_dict()


@pytest.mark.parametrize('num_batches, length, taken', [(1, 9, 1), (3, 9, 3), (4, 2, 2)])
def test_every_interval_starts_from_that_many_batches(num_batches, length, taken, caplog):
    model, loader = build(model_cfg('RetinaNet', 4)), Loader(length)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, 'test'):
        InitializeIntervalsHook(num_batches).before_train(make_runner(model, loader))
    assert (loader.started, loader.taken) == (1, taken)
    assert all(bool(each.initialized) for each in quantizers(model))
    changed = {
        key
        for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {key.rsplit('.', 1)[1] for key in changed} == {'interval', 'initialized'}
    assert f'Initialized {len(quantizers(model))} quantization intervals' in caplog.text


@pytest.mark.parametrize('load_from, warns', [(None, True), ('float.pth', False)])
def test_warns_of_low_bit_training_from_scratch(load_from, warns, caplog):
    model = build(model_cfg('RetinaNet', 4))
    InitializeIntervalsHook(1).before_train(make_runner(model, Loader(), load_from))
    assert ('trained from scratch: load_from is None' in caplog.text) is warns


def test_a_trained_model_is_left_alone_and_costs_nothing(calibrated_state, caplog):
    model, loader = build(model_cfg('RetinaNet', 4)), Loader()
    model.load_state_dict(calibrated_state)
    with caplog.at_level(logging.INFO, 'test'):
        InitializeIntervalsHook().before_train(make_runner(model, loader))
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in calibrated_state.items())
    assert loader.started == 0, 'not even the workers of the loader are started'
    assert caplog.text == ''


def test_only_the_intervals_without_a_value_start(calibrated_state):
    model = build(model_cfg('RetinaNet', 4))
    model.load_state_dict(calibrated_state)
    new = model.neck.lateral_convs[0].conv.input_quantizer
    new.initialized.fill_(False)
    with torch.no_grad():
        new.interval.fill_(77.)
    InitializeIntervalsHook(1).before_train(make_runner(model, Loader()))
    assert bool(new.initialized) and float(new.interval) != 77.
    assert all(
        torch.equal(value, calibrated_state[key]) for key, value in model.state_dict().items()
        if 'lateral_convs.0' not in key)


def test_a_float_model_is_nothing_to_it():
    loader = Loader()
    InitializeIntervalsHook().before_train(make_runner(build(model_cfg('RetinaNet')), loader))
    assert loader.started == 0


def test_it_looks_into_a_model_wrapper():
    model = build(model_cfg('RetinaNet', 4))
    wrapped = nn.DataParallel(model)
    InitializeIntervalsHook(1).before_train(make_runner(wrapped, Loader()))
    assert all(bool(each.initialized) for each in quantizers(model))


@pytest.mark.parametrize('num_batches', [0, -1])
def test_number_of_batches_must_be_positive(num_batches):
    with pytest.raises(ValueError, match=f'num_batches must be at least 1, but got {num_batches}'):
        HOOKS.build(dict(type='mmaqd.InitializeIntervalsHook', num_batches=num_batches))


class TestRefusals:
    """What would go wrong without a word is refused before the first iteration."""

    @pytest.mark.parametrize('part, changes', [
        ('backbone', dict(frozen_stages=1, norm_eval=True)),
        ('bbox_head', dict(norm_eval=True)),
    ])
    def test_frozen_bn_behind_normalized_weights(self, part, changes):
        cfg = model_cfg('RetinaNet', 8)
        cfg[part].update(changes)
        model, message = build(cfg), rf'^{part}\.\S+: .* {part}\.\S+ behind it keeps its statistics'
        with pytest.raises(ValueError, match=message):
            InitializeIntervalsHook(1).before_train(make_runner(model, Loader()))
        assert not any(bool(each.initialized) for each in quantizers(model))
        cfg['quantization']['weight_quantizer']['normalize'] = False
        InitializeIntervalsHook(1).before_train(make_runner(build(cfg), Loader()))

    def test_negative_inputs_of_quantizers_that_need_no_start(self):
        cfg = model_cfg('RetinaNet', 8)
        cfg['neck']['act_cfg'] = None
        cfg['quantization'] = dict(
            weight_quantizer=dict(type='mmaqd.LSQWeightQuantizer', bit_width=8),
            input_quantizer=dict(type='mmaqd.PACTActivationQuantizer', bit_width=8),
            rules=[dict(pattern='backbone.conv1', input_quantizer=None)])
        with pytest.raises(ValueError, match=r'^neck\.fpn_convs\.\d\.conv\S+: .*negative') as error:
            InitializeIntervalsHook(1).before_train(make_runner(build(cfg), Loader()))
        rules = [
            eval(line.strip().rstrip(',')) for line in str(error.value).splitlines()
            if line.startswith('    dict(')
        ]
        cfg['quantization']['rules'] += rules
        model = build(cfg)
        InitializeIntervalsHook(1).before_train(make_runner(model, Loader()))
        names = {type(each).__name__ for each in quantizers(model.backbone)}
        assert 'PACTActivationQuantizer' in names and len(rules) < 5
