"""Which layers another number of classes changes."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.checkpoints import CheckpointMismatchError, change_classes


class Head(nn.Module):
    """A head with ``outputs`` for each class, and ``boxes`` for each class or for all."""

    def __init__(self, num_classes: int, background: int = 0, boxes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls = nn.Linear(4, 3 * (num_classes + background))
        self.reg = nn.Linear(4, boxes * num_classes if boxes else 12)


@pytest.mark.parametrize('background', [0, 1])
@pytest.mark.parametrize('boxes', [0, 4])
def test_layers_that_follow_the_classes_keep_what_they_have(background, boxes):
    saved, model = Head(7, background, boxes), Head(3, background, boxes)
    state = dict(saved.state_dict())
    assert change_classes(state, model) == (['cls', 'reg'] if boxes else ['cls'])
    assert torch.equal(state['cls.weight'], model.cls.weight)
    assert torch.equal(state['reg.bias'], model.reg.bias if boxes else saved.reg.bias)
    model.load_state_dict(state)


def test_the_same_classes_change_nothing():
    state = dict(Head(3).state_dict())
    assert change_classes(state, Head(3)) == []


@pytest.mark.parametrize('changed', ['cls.weight', 'reg.weight'])
def test_other_differences_are_refused(changed):
    model, state = Head(3), dict(Head(7).state_dict())
    state[changed] = torch.ones(21, 5) if changed == 'cls.weight' else torch.ones(7, 4)
    before = dict(state)
    with pytest.raises(CheckpointMismatchError, match='differ in more than the number of classes'):
        change_classes(state, model)
    assert state == before
