"""Faults of resumed runs: whatever the loop, the sampler and the workers, equal to the bit."""
from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from mmengine.config import Config

from mmaqd.engine import launch
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import differences, make_runner, train

BATCHES, ITERATIONS = 3, 8
TRAINING_STATE = ('state_dict', 'optimizer', 'param_schedulers')
BY_ITERATION = dict(type='CheckpointHook', by_epoch=False, interval=1)
ITER_LOOP = dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=100, _delete_=True)
INFINITE = dict(type='InfiniteSampler', shuffle=True, _delete_=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats must not depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('resuming') / 'data', num_images=2 * BATCHES)


def random_cfg(data: Path, work_dir: Path, **changes: Any) -> Config:
    """A 4-bit run with random augmentations, and dotted keys changed."""
    cfg = run_cfg(data, work_dir, bits=4, epochs=3)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key)
    loader = cfg.train_dataloader
    loader.sampler.shuffle = True
    loader.dataset.pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
    loader.dataset.pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5)]
    cfg.merge_from_dict(changes)
    return cfg


def state(path: Path) -> dict:
    saved = torch.load(path, map_location='cpu', weights_only=False)
    return {key: saved[key] for key in TRAINING_STATE}


def assert_resumes_exactly(cfg: Config, tmp_path: Path, at: str, last: str) -> None:
    """A run that goes on from the checkpoint ``at`` of another ends as that one ended."""
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(cfg, work_dir=str(whole))
    runner = train(cfg, work_dir=str(resumed), load_from=str(whole / at), resume=True)
    assert not differences(state(whole / last), state(resumed / last))
    assert differences(state(whole / at), state(whole / last)), 'the training did go on'
    assert runner.iter == torch.load(whole / last, weights_only=False)['meta']['iter']


LOOPS = {
    'in the middle of an epoch': (dict(), 'iter_5.pth', 'iter_9.pth'),
    'at the end of an epoch': (dict(), 'iter_6.pth', 'iter_9.pth'),
    'in a group by aspect ratio':
    (dict(train_dataloader=dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))),
     'iter_4.pth', 'iter_9.pth'),
    'with a worker that persists':
    (dict(train_dataloader=dict(num_workers=1, persistent_workers=True)), 'iter_4.pth',
     'iter_9.pth'),
    'by iterations': (dict(train_cfg=ITER_LOOP,
                           train_dataloader=dict(sampler=INFINITE)), 'iter_5.pth', 'iter_8.pth'),
    'by iterations, two workers that persist': (dict(
        train_cfg=ITER_LOOP,
        train_dataloader=dict(sampler=INFINITE, num_workers=2,
                              persistent_workers=True)), 'iter_2.pth', 'iter_8.pth'),
    'by iterations over a finite sampler': (dict(train_cfg=ITER_LOOP), 'iter_5.pth', 'iter_8.pth'),
}


@pytest.mark.slow
@pytest.mark.parametrize('changes, at, last', LOOPS.values(), ids=LOOPS)
def test_a_resumed_run_is_equal(data, tmp_path, changes, at, last):
    cfg = random_cfg(data, tmp_path)
    cfg.default_hooks.checkpoint = BY_ITERATION
    cfg.merge_from_dict(deepcopy(changes))
    assert_resumes_exactly(cfg, tmp_path, at, last)


def test_custom_hooks_and_seed_that_a_config_lost(data, tmp_path):
    """As the README's snippet: a list of its own, and no randomness."""
    cfg = random_cfg(data, tmp_path / 'whole')
    cfg.custom_hooks = [dict(type='mmaqd.InitializeIntervalsHook')]
    cfg.pop('randomness')
    cfg.dump(tmp_path / 'config.py')
    launch.train(str(tmp_path / 'config.py'))
    launch.train(
        str(tmp_path / 'config.py'),
        str(tmp_path / 'resumed'),
        resume=str(tmp_path / 'whole' / 'epoch_2.pth'))
    assert not differences(*(state(tmp_path / each / 'epoch_3.pth')
                             for each in ('whole', 'resumed')))


def test_a_batch_does_not_depend_on_the_number_of_workers(data, tmp_path):
    seen = []
    for workers in (0, 2):
        cfg = random_cfg(data, tmp_path / str(workers))
        cfg.train_dataloader.num_workers = workers
        train(cfg)
        seen.append(state(tmp_path / str(workers) / 'epoch_3.pth'))
    assert not differences(*seen)


@pytest.mark.parametrize('changes, word', [
    (dict(optim_wrapper=dict(accumulative_counts=2)), 'gradients are accumulated'),
    (dict(train_dataloader=dict(batch_size=4)), 'batch size or number of processes changed'),
])
def test_what_can_not_be_resumed_exactly_is_said(data, tmp_path, changes, word, caplog):
    cfg = random_cfg(data, tmp_path / 'whole')
    cfg.default_hooks.checkpoint = BY_ITERATION
    train(cfg)
    cfg.merge_from_dict(changes)
    cfg.train_cfg.max_epochs = 4
    at = tmp_path / 'whole' / 'iter_9.pth'
    runner = make_runner(cfg, work_dir=str(tmp_path / 'on'), load_from=str(at), resume=True)
    said = []
    runner.logger.warning = said.append
    runner.train()
    assert any('will not equal' in text and word in text for text in said), said


def test_transforms_that_remember_images_are_said(data, tmp_path):
    cfg = random_cfg(data, tmp_path)
    cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=cfg.train_dataloader.dataset,
        pipeline=[dict(type='CachedMixUp', img_scale=(64, 64), max_cached_images=4)])
    cfg.train_dataloader.dataset.dataset.pipeline.pop()
    cfg.train_dataloader.dataset.pipeline.append(dict(type='PackDetInputs'))
    cfg.train_cfg.max_epochs = 1
    runner = make_runner(cfg)
    said = []
    runner.logger.warning = said.append
    runner.train()
    assert any('CachedMixUp mixes images' in text for text in said), said
