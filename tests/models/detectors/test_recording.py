"""Recording what submodules return."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.models.detectors import record_outputs


@pytest.fixture
def model() -> nn.Module:
    shared = nn.Conv2d(2, 2, 1)
    return nn.ModuleDict(dict(first=nn.Sequential(shared), conv=shared))


def test_every_call_is_recorded_in_order_under_its_name(model):
    x = torch.randn(1, 2, 3, 3)
    with record_outputs(model, ['first', 'conv']) as outputs:
        once = model['first'](x)
        twice = model['conv'](once)
    assert outputs['first'] == [once]
    assert [id(each) for each in outputs['conv']] == [id(once), id(twice)]
    assert twice.requires_grad


def test_nothing_stays_behind(model):
    with pytest.raises(ZeroDivisionError), record_outputs(model, ['conv']) as outputs:
        model['conv'](torch.randn(1, 2, 3, 3))
        1 / 0
    model['conv'](torch.randn(1, 2, 3, 3))
    assert len(outputs['conv']) == 1
    assert not model['conv']._forward_hooks


def test_unknown_module(model):
    with pytest.raises(AttributeError, match='neck'), record_outputs(model, ['neck']):
        pass
