"""The hook that re-estimates BN's statistics: when it runs, and on what."""
from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, get_priority
from torch import nn

from mmaqd.registry import HOOKS
from tests.helpers.batch_norms import TwoNorms, batches, expected_statistics, statistics


def make_runner(model: nn.Module, **changes: Any) -> SimpleNamespace:
    given = dict(
        model=model,
        train_dataloader=batches(),
        hooks=[],
        epoch=0,
        max_epochs=5,
        logger=logging.getLogger('test'))
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize('num_batches', [1, 2, 9])
def test_the_hook_looks_at_that_many_batches(num_batches, caplog):
    model = TwoNorms().train()
    hook = HOOKS.build(dict(type='mmaqd.ReestimateBNHook', num_batches=num_batches))
    with caplog.at_level(logging.INFO, 'test'):
        hook.after_train_epoch(make_runner(nn.DataParallel(model)))
    expected = expected_statistics(model, batches()[:num_batches])
    torch.testing.assert_close(statistics(model), expected)
    assert 'Re-estimated the statistics of 2 BN layers' in caplog.text


@pytest.mark.parametrize('epoch, interval, runs', [
    (0, 1, True),
    (0, 2, False),
    (1, 2, True),
    (4, 3, True),
    (3, 3, False),
])
def test_the_hook_runs_every_few_epochs_and_after_the_last(epoch, interval, runs):
    model = TwoNorms().train()
    before = statistics(model)
    hook = HOOKS.build(dict(type='mmaqd.ReestimateBNHook', interval=interval))
    hook.after_train_epoch(make_runner(model, epoch=epoch))
    assert torch.equal(statistics(model)['bn1.running_mean'], before['bn1.running_mean']) != runs


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_weights_get_their_own_statistics(update_buffers):
    """Those that MMEngine validates (parameters swapped) and saves (the average's state)."""
    model = TwoNorms().train()
    ema = EMAHook()
    ema.ema_model = ExponentialMovingAverage(model, update_buffers=update_buffers)
    with torch.no_grad():
        model.conv1.weight.mul_(3)
    average = ema.ema_model.module
    HOOKS.build(dict(type='mmaqd.ReestimateBNHook')).after_train_epoch(
        make_runner(model, hooks=[ema]))
    expected = expected_statistics(average, batches())
    torch.testing.assert_close(statistics(average), expected)
    torch.testing.assert_close(statistics(model), expected)
    assert not torch.equal(average.conv1.weight, model.conv1.weight)


def test_it_runs_before_the_checkpoint_is_written():
    hook = HOOKS.build(dict(type='mmaqd.ReestimateBNHook'))
    assert get_priority(hook.priority) < get_priority(CheckpointHook.priority)


def test_it_needs_epochs():
    hook = HOOKS.build(dict(type='mmaqd.ReestimateBNHook'))
    by_epoch, by_iteration = (
        object.__new__(each) for each in (EpochBasedTrainLoop, IterBasedTrainLoop))
    hook.before_train(SimpleNamespace(train_loop=by_epoch))
    with pytest.raises(ValueError, match='end of epochs, but train_cfg is an IterBasedTrainLoop'):
        hook.before_train(SimpleNamespace(train_loop=by_iteration))


@pytest.mark.parametrize('name', ['num_batches', 'interval'])
def test_arguments_must_be_positive(name):
    with pytest.raises(ValueError, match=f'{name} must be at least 1, but got 0'):
        HOOKS.build({'type': 'mmaqd.ReestimateBNHook', name: 0})
