"""Whole runs with MMEngine's runner: float training, low-bit training from it, testing."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import Runner, load_state_dict

from mmaqd.quantizers import Quantizer
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import DETECTORS, build, make_batch, model_cfg, raw_outputs
from tests.helpers.runs import checkpoint, make_runner, scalars, train


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('whole') / 'data', num_images=4)


@pytest.fixture(scope='module')
def float_run(data, tmp_path_factory) -> Runner:
    return train(run_cfg(data, tmp_path_factory.mktemp('float')))


@pytest.fixture(scope='module')
def low_bit_cfg(data, float_run, tmp_path_factory) -> Config:
    """A 4-bit run of two epochs that starts from the float run."""
    cfg = run_cfg(data, tmp_path_factory.mktemp('low_bit'), bits=4, epochs=2)
    cfg.custom_hooks.append(dict(type='mmaqd.LogIntervalsHook', interval=2))
    cfg.load_from = str(Path(float_run.work_dir) / 'epoch_1.pth')
    return cfg


@pytest.fixture(scope='module')
def low_bit_run(low_bit_cfg) -> Runner:
    return train(low_bit_cfg)


def low_bit_state(work_dir: str | Path, epoch: int) -> dict:
    return checkpoint(work_dir, epoch)['state_dict']


def intervals(state: dict) -> dict:
    return {key: value for key, value in state.items() if key.endswith('.interval')}


def test_float_run_has_no_quantizers(float_run):
    assert not intervals(low_bit_state(float_run.work_dir, 1))


def test_low_bit_run_learns_weights_and_intervals(low_bit_run):
    first, last = (low_bit_state(low_bit_run.work_dir, epoch) for epoch in (1, 2))
    assert intervals(first)
    moved = [key for key in intervals(first) if not torch.equal(first[key], last[key])]
    assert len(moved) > len(intervals(first)) / 2
    assert all(bool(value) for key, value in last.items() if key.endswith('.initialized'))
    quantizers = [each for each in low_bit_run.model.modules() if isinstance(each, Quantizer)]
    assert all(bool((each.scale > 0).all()) for each in quantizers)
    assert all(torch.isfinite(value).all() for value in last.values())


def test_low_bit_run_started_from_the_float_weights(low_bit_cfg, float_run, tmp_path):
    runner = make_runner(low_bit_cfg, work_dir=str(tmp_path))
    runner.load_or_resume()
    float_state = low_bit_state(float_run.work_dir, 1)
    own = runner.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in float_state.items())


def test_intervals_are_logged_by_name_and_step(low_bit_run):
    quantizers = {
        f'interval/{name}'
        for name, module in low_bit_run.model.named_modules() if isinstance(module, Quantizer)
    }
    records = [
        record for record in scalars(low_bit_run.work_dir) if any(
            key.startswith('interval/') for key in record)
    ]
    assert [record['step'] for record in records] == [0, 2, 4]  # also where it starts
    assert all(record.keys() - {'step'} == quantizers for record in records)
    name = 'neck.fpn_convs.0.conv.input_quantizer'
    value = low_bit_state(low_bit_run.work_dir, 2)[f'{name}.interval']
    assert records[-1][f'interval/{name}'] == pytest.approx(float(value))


def test_testing_a_checkpoint_repeats_the_validation(low_bit_cfg, low_bit_run, tmp_path):
    path = str(Path(low_bit_run.work_dir) / 'epoch_2.pth')
    metrics = make_runner(low_bit_cfg, load_from=path, work_dir=str(tmp_path)).test()
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    validated = [record for record in scalars(low_bit_run.work_dir) if 'coco/bbox_mAP' in record]
    assert metrics['coco/bbox_mAP'] == validated[-1]['coco/bbox_mAP']


def test_inference_api_on_a_low_bit_checkpoint(low_bit_cfg, low_bit_run, tmp_path):
    path = str(Path(low_bit_run.work_dir) / 'epoch_2.pth')
    config = str(tmp_path / 'config.py')
    low_bit_cfg.dump(config)
    model = init_detector(config, path, device='cpu')
    state = low_bit_state(low_bit_run.work_dir, 2)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    result = inference_detector(model, picture)
    assert result.pred_instances.bboxes.shape[1:] == (4, )
    assert len(result.pred_instances) > 0


@pytest.mark.slow
@pytest.mark.parametrize('update_buffers', [False, True], ids=['parameters', 'buffers-too'])
def test_ema_averages_the_intervals_too(low_bit_cfg, update_buffers, tmp_path):
    cfg = Config(low_bit_cfg.to_dict())
    cfg.custom_hooks.append(
        dict(
            type='EMAHook',
            ema_type='ExponentialMovingAverage',
            momentum=0.5,
            update_buffers=update_buffers))
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    runner = train(cfg, work_dir=str(tmp_path))
    saved = checkpoint(tmp_path, 1)
    averaged, plain = saved['state_dict'], saved['ema_state_dict']
    names = list(intervals(averaged))
    assert names and all(
        bool(value) for key, value in averaged.items() if key.endswith('.initialized'))
    assert any(not torch.equal(averaged[name], plain[f'module.{name}']) for name in names)
    fresh = build(cfg.model, seed=3)
    load_state_dict(fresh, averaged, strict=True)
    assert all(torch.isfinite(each).all() for each in raw_outputs(fresh.eval(), make_batch()))
    resumed = make_runner(
        cfg, work_dir=str(tmp_path), resume=True, load_from=None, **{'train_cfg.max_epochs': 2})
    resumed.train()
    assert low_bit_state(tmp_path, 2).keys() == averaged.keys()
    assert runner.epoch == 1 and resumed.epoch == 2


def test_two_equal_batches_accumulated_are_one_step_on_one_of_them(data, tmp_path):
    once = _after_an_epoch(data, tmp_path / 'once', indices=[0, 1], accumulative_counts=1)
    twice = _after_an_epoch(data, tmp_path / 'twice', indices=[0, 1, 0, 1], accumulative_counts=2)
    assert [name for name in intervals(once) if torch.equal(once[name], twice[name])]
    torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-6)


def _after_an_epoch(data: Path, work_dir: Path, indices: list[int],
                    accumulative_counts: int) -> dict:
    """The parameters after an epoch over some images, two in a batch."""
    cfg = run_cfg(data, work_dir, bits=4)
    cfg.train_dataloader.dataset.indices = indices
    cfg.optim_wrapper.accumulative_counts = accumulative_counts
    cfg.custom_hooks = [dict(type='mmaqd.InitializeIntervalsHook', num_batches=1)]
    return {name: value.detach() for name, value in train(cfg).model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize('detector', DETECTORS)
def test_every_detector_trains_on_a_batch_without_a_box(detector, tmp_path):
    data = make_coco(tmp_path / 'data', num_images=4, num_empty=2)
    cfg = run_cfg(data, tmp_path / 'work', bits=2)
    cfg.model = model_cfg(detector, 2)
    train(cfg)
    losses = [record['loss'] for record in scalars(tmp_path / 'work') if 'loss' in record]
    assert len(losses) == 2 and np.isfinite(losses).all()
    state = low_bit_state(tmp_path / 'work', 1)
    assert all(torch.isfinite(value).all() for value in state.values())
