"""Re-estimating BN's statistics: the numbers, what stays as it was, and when the hook runs."""
from __future__ import annotations

import logging
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, get_priority
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.engine.hooks import reestimate_bn_hook
from mmaqd.engine.hooks.reestimate_bn_hook import reestimate_batch_norm, trained_norms
from mmaqd.registry import HOOKS
from tests.helpers.detector import LEVELS, build, build_calibrated, make_batch, model_cfg


class TwoNorms(nn.Module):
    """conv, BN, conv, BN, called as MMEngine calls a detector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3)
        self.conv2, self.bn2 = nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2, momentum=None)

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        return batch

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(inputs)).relu()))


def batches() -> list[dict]:
    """Batches of different sizes and statistics."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 3, 8, 8), (1, 3, 12, 9), (3, 3, 7, 7)]
    return [
        dict(inputs=3 * i + (1 + i) * torch.randn(shape, generator=generator))
        for i, shape in enumerate(shapes)
    ]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if 'running' in key}


def expected_statistics(model: TwoNorms, given: list[dict]) -> dict[str, Tensor]:
    """Mean and variance over everything that reaches each BN, all values put in one row."""
    seen: dict[str, list[Tensor]] = dict(bn1=[], bn2=[])
    for batch in given:
        first = model.conv1(batch['inputs'])
        normed = F.batch_norm(first, None, None, model.bn1.weight, model.bn1.bias, training=True)
        for name, x in (('bn1', first), ('bn2', model.conv2(normed.relu()))):
            seen[name].append(x.detach().double().transpose(0, 1).flatten(1))
    rows = {name: torch.cat(each, dim=1) for name, each in seen.items()}
    means = {f'{name}.running_mean': row.mean(1).float() for name, row in rows.items()}
    return {
        **means,
        **{
            f'{name}.running_var': row.var(1, unbiased=False).float()
            for name, row in rows.items()
        }
    }


def test_mean_and_variance_over_all_values():
    model = TwoNorms().train()
    reestimate_batch_norm(model, batches(), trained_norms(model))
    torch.testing.assert_close(statistics(model), expected_statistics(model, batches()))


def test_twice_is_once():
    model = TwoNorms().train()
    reestimate_batch_norm(model, batches(), trained_norms(model))
    once = statistics(model)
    reestimate_batch_norm(model, batches(), trained_norms(model))
    torch.testing.assert_close(statistics(model), once, rtol=0, atol=0)


def test_a_large_mean_does_not_eat_the_variance():
    model = TwoNorms().train()
    shifted = [dict(inputs=batch['inputs'] + 1e4) for batch in batches()]
    reestimate_batch_norm(model, shifted, ['bn1'])
    expected = expected_statistics(model, shifted)['bn1.running_var']
    torch.testing.assert_close(model.bn1.running_var, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS'])
def test_of_one_batch_it_is_the_statistics_of_that_batch(detector):
    """As torch takes them with momentum 1, but for its correction n / (n - 1)."""
    model = build_calibrated(detector, 4).train()
    twin, batch, sizes = deepcopy(model), make_batch(size=128), {}
    for name, module in twin.named_modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
            module.register_forward_hook(
                lambda m, x, y, name=name: sizes.update({name: y.numel() / y.shape[1]}))
    with torch.no_grad():
        twin(**twin.data_preprocessor(batch), mode='tensor')
    reestimate_batch_norm(model, [batch], trained_norms(model))
    own, others = statistics(model), statistics(twin)
    assert len([key for key in own if f'bn.{LEVELS - 1}.' in key]) == 4
    for key, value in others.items():
        n = sizes[key.rsplit('.', 1)[0]]
        expected = value * (n - 1) / n if key.endswith('var') else value
        torch.testing.assert_close(own[key], expected, rtol=1e-4, atol=1e-5, msg=key)


def test_nothing_else_changes():
    model = build_calibrated('RetinaNet', 4).train()
    model.neck.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    reestimate_batch_norm(model, [make_batch(), make_batch()], trained_norms(model))
    changed = {
        key
        for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {key.rsplit('.', 1)[1] for key in changed} == {'running_mean', 'running_var'}
    assert not [key for key in changed if key.startswith('neck')], 'frozen while training'
    assert [module.training for module in model.modules()] == modes
    assert all(module.track_running_stats for module in model.modules()
               if isinstance(module, _BatchNorm))


def test_a_failure_leaves_the_model_as_it_was():
    model = TwoNorms().train()
    before = statistics(model)
    with pytest.raises(TypeError):
        reestimate_batch_norm(model, [*batches(), {}], trained_norms(model))
    torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)
    assert model.training and model.bn1.track_running_stats
    assert not model.bn1._forward_pre_hooks


def test_a_norm_without_data_keeps_its_statistics():
    model = TwoNorms().train()
    model.spare = nn.BatchNorm2d(4)
    model.spare.running_mean.fill_(7.0)
    reestimate_batch_norm(model, batches(), trained_norms(model))
    assert (model.spare.running_mean == 7).all() and (model.spare.running_var == 1).all()


def test_processes_share_their_sums(monkeypatch):
    """Two processes with a part of the batches each end like one with all of them."""
    whole, part = TwoNorms().train(), TwoNorms().train()
    reestimate_batch_norm(whole, batches(), ['bn1', 'bn2'])
    other: list[Tensor] = []
    monkeypatch.setattr(reestimate_bn_hook, 'all_reduce', lambda sums: other.append(sums.clone()))
    reestimate_batch_norm(TwoNorms().train(), batches()[:1], ['bn1', 'bn2'])
    monkeypatch.setattr(reestimate_bn_hook, 'all_reduce', lambda sums: sums.add_(other.pop(0)))
    reestimate_batch_norm(part, batches()[1:], ['bn1', 'bn2'])
    assert not other
    torch.testing.assert_close(statistics(part), statistics(whole))


@pytest.mark.parametrize('make, count', [
    pytest.param(lambda: nn.BatchNorm2d(2), 1, id='trained'),
    pytest.param(lambda: nn.BatchNorm2d(2).eval(), 0, id='frozen'),
    pytest.param(lambda: nn.BatchNorm2d(2, track_running_stats=False), 0, id='no-statistics'),
    pytest.param(lambda: nn.SyncBatchNorm(2), 1, id='sync'),
    pytest.param(lambda: nn.GroupNorm(1, 2), 0, id='group'),
])
def test_which_norms_follow_the_batches(make, count):
    assert len(trained_norms(nn.Sequential(make()))) == count


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


def test_a_float_detector_too():
    model = build(model_cfg('ATSS')).train()
    before = statistics(model)
    reestimate_batch_norm(model, [make_batch()], trained_norms(model))
    assert all(not torch.equal(value, before[key]) for key, value in statistics(model).items())
