"""Re-estimating BN's statistics: the numbers, and what stays as it was."""
from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.engine import batch_norm
from mmaqd.engine.batch_norm import reestimate_batch_norm, trained_norms
from tests.helpers.batch_norms import TwoNorms, batches, expected_statistics, statistics
from tests.helpers.detector import LEVELS, build, build_calibrated, make_batch, model_cfg


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
    monkeypatch.setattr(batch_norm, 'all_reduce', lambda sums: other.append(sums.clone()))
    reestimate_batch_norm(TwoNorms().train(), batches()[:1], ['bn1', 'bn2'])
    monkeypatch.setattr(batch_norm, 'all_reduce', lambda sums: sums.add_(other.pop(0)))
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


def test_a_float_detector_too():
    model = build(model_cfg('ATSS')).train()
    before = statistics(model)
    reestimate_batch_norm(model, [make_batch()], trained_norms(model))
    assert all(not torch.equal(value, before[key]) for key, value in statistics(model).items())
