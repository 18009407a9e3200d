"""A run that was killed and resumed ends with the weights of the run that was never stopped."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest
import torch
from mmengine.config import Config

from mmaqd.engine.launch import set_resume
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.killed_run import train_until_killed
from tests.helpers.runs import checkpoint, differences, train

EPOCHS, BATCHES = 3, 3
TRAINING_STATE = ('state_dict', 'optimizer', 'param_schedulers')


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats must not depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cfg(data: Path, work_dir: Path, float_checkpoint: str) -> Config:
    """A 4-bit run with all that is random in ours: shuffling, flips in a worker, schedules."""
    cfg = run_cfg(data, work_dir, bits=4, epochs=EPOCHS)
    cfg.load_from = float_checkpoint
    loader = cfg.train_dataloader
    loader.num_workers = 1
    loader.worker_init_fn = dict(type='mmaqd.seed_worker')
    loader.sampler.shuffle = True
    loader.dataset.pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
    # This one draws from numpy's generator.
    loader.dataset.pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
        dict(
            type='CosineAnnealingLR',
            by_epoch=True,
            begin=0,
            end=EPOCHS,
            T_max=EPOCHS,
            convert_to_iter_based=True),
    ]
    cfg.optim_wrapper.clip_grad = dict(max_norm=35, norm_type=2)
    cfg.pop('val_cfg')
    cfg.pop('val_dataloader')
    cfg.pop('val_evaluator')
    return cfg


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('resume') / 'data', num_images=2 * BATCHES)


@pytest.fixture(scope='module')
def float_checkpoint(data, tmp_path_factory) -> str:
    work_dir = tmp_path_factory.mktemp('float')
    train(run_cfg(data, work_dir))
    return str(work_dir / 'epoch_1.pth')


def test_killed_in_the_middle_of_an_epoch(data, float_checkpoint, tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    train(make_cfg(data, whole, float_checkpoint))

    cfg = make_cfg(data, broken, float_checkpoint)
    train_until_killed(cfg, tmp_path / 'config.py', iteration=2 * BATCHES + 2)
    assert sorted(path.name for path in broken.glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']
    assert not _differences(whole, broken, epoch=2), 'two processes train alike'

    set_resume(cfg, 'auto')
    assert os.path.basename(cfg.load_from) == 'epoch_2.pth'
    train(cfg)
    assert not _differences(whole, broken, epoch=3)
    assert _differences(whole, whole, epoch=2, other_epoch=3), 'the last epoch did change them'


def test_without_the_seed_hook_a_resumed_run_differs(data, float_checkpoint, tmp_path):
    """The exactness is no accident: it is the hook that brings it."""
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    cfg = make_cfg(data, whole, float_checkpoint)
    cfg.custom_hooks = [each for each in cfg.custom_hooks if each['type'] != 'mmaqd.EpochSeedHook']
    train(cfg)
    cfg.work_dir = str(resumed)
    set_resume(cfg, str(whole / 'epoch_2.pth'))
    train(cfg)
    assert _differences(whole, resumed, epoch=3)


def test_resuming_does_not_start_the_intervals_anew(data, float_checkpoint, tmp_path):
    cfg = make_cfg(data, tmp_path, float_checkpoint)
    cfg.train_cfg.max_epochs = 1
    train(cfg)
    set_resume(cfg, 'auto')
    runner = train(cfg)  # nothing is left to do
    saved = checkpoint(tmp_path, 1)['state_dict']
    assert not differences(saved, dict(runner.model.state_dict()))


def _differences(first: Path,
                 second: Path,
                 epoch: int,
                 other_epoch: int | None = None) -> list[str]:
    one, other = checkpoint(first, epoch), checkpoint(second, other_epoch or epoch)
    assert any(key.endswith('.interval') for key in one['state_dict'])
    assert any('momentum_buffer' in each for each in one['optimizer']['state'].values())
    return differences(*({key: saved[key] for key in TRAINING_STATE} for saved in (one, other)))
