"""Starting from a checkpoint of other bits: when it is allowed."""
from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import get_priority
from torch import Tensor, nn

from mmaqd.quantizers import CheckpointMismatchError
from mmaqd.registry import HOOKS
from tests.helpers.detector import build, build_calibrated, model_cfg

INNER = 'backbone.layer1.0.conv1'


@pytest.fixture(scope='module')
def four_bits() -> dict[str, Tensor]:
    """State of a 4-bit detector with intervals that no start gives."""
    state = build_calibrated('RetinaNet', 4, seed=5).state_dict()
    return {
        key: 0.1 + 1.3 * value if key.endswith('.interval') else value.clone()
        for key, value in state.items()
    }


def make_runner(model: nn.Module, **changes: Any) -> SimpleNamespace:
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    given = dict(
        model=model, optim_wrapper=optim_wrapper, _resume=False, logger=logging.getLogger('test'))
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize('intervals, word', [('restart', 'restarted'), ('keep', 'kept')])
def test_the_hook_changes_what_training_loads(four_bits, intervals, word, caplog):
    model, checkpoint = build(model_cfg('RetinaNet', 2)), dict(state_dict=dict(four_bits))
    hook = HOOKS.build(dict(type='mmaqd.ChangeBitsHook', intervals=intervals))
    with caplog.at_level(logging.INFO, 'test'):
        hook.after_load_checkpoint(make_runner(nn.DataParallel(model)), checkpoint)
    model.load_state_dict(checkpoint['state_dict'])
    kept = bool(model.state_dict()[f'{INNER}.input_quantizer.initialized'])
    assert kept == (intervals == 'keep')
    assert f'their intervals are {word}' in caplog.text


@pytest.mark.parametrize('changes', [
    pytest.param(dict(_resume=True), id='resuming'),
    pytest.param(dict(optim_wrapper=None), id='testing'),
    pytest.param(dict(optim_wrapper=dict(type='OptimWrapper')), id='testing-by-a-training-config'),
])
def test_resuming_and_testing_still_refuse_other_bits(four_bits, changes):
    model, checkpoint = build(model_cfg('RetinaNet', 2)), dict(state_dict=dict(four_bits))
    HOOKS.build(dict(type='mmaqd.ChangeBitsHook')).after_load_checkpoint(
        make_runner(model, **changes), checkpoint)
    with pytest.raises(CheckpointMismatchError, match='4 bits, the model has one of 2 bits'):
        model.load_state_dict(checkpoint['state_dict'])


def test_it_comes_before_the_hook_that_averages():
    hook = HOOKS.build(dict(type='mmaqd.ChangeBitsHook'))
    assert get_priority(hook.priority) < get_priority(EMAHook.priority)


def test_unknown_option():
    with pytest.raises(ValueError, match="one of .'restart', 'keep'., but got 'drop'"):
        HOOKS.build(dict(type='mmaqd.ChangeBitsHook', intervals='drop'))
