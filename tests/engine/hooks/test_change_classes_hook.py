"""When a checkpoint of other classes is taken; what is taken is tested in tests/checkpoints."""
from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import get_priority

from mmaqd.quantizers import CheckpointMismatchError
from mmaqd.registry import HOOKS
from tests.helpers.detector import build, model_cfg


@pytest.mark.parametrize('changes, taken', [
    (dict(), True),
    (dict(_resume=True), False),
    (dict(optim_wrapper=None), False),
])
def test_only_when_training_starts(changes, taken, caplog):
    model = build(model_cfg('RetinaNet', 4))
    state = dict(build(model_cfg(num_classes=7)).state_dict())
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    runner = SimpleNamespace(**{
        **dict(model=model, optim_wrapper=optim_wrapper, _resume=False,
               logger=logging.getLogger('test')), **changes
    })  # yapf: disable
    hook = HOOKS.build(dict(type='mmaqd.ChangeClassesHook'))
    hook.after_load_checkpoint(runner, dict(state_dict=state))
    assert ('start at random: bbox_head.retina_cls.' in caplog.text) == taken
    if taken:
        model.load_state_dict(state)
    else:
        with pytest.raises(CheckpointMismatchError, match='ChangeClassesHook'):
            model.load_state_dict(state)


def test_it_comes_before_the_hook_that_averages():
    hook = HOOKS.build(dict(type='mmaqd.ChangeClassesHook'))
    assert get_priority(hook.priority) < get_priority(EMAHook.priority)
