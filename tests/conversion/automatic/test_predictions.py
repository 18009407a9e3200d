"""What a graph says of small modules."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmaqd.conversion.automatic.predictions import Trace, tensors


class Net(nn.Module):
    """Two branches behind a stem, one of which refines what the other predicts."""

    def __init__(self) -> None:
        super().__init__()
        for name in ('stem', 'body', 'box', 'refined', 'unused'):
            setattr(self, name, nn.Conv2d(3, 3, 1))

    def forward(self, x: Tensor) -> dict:
        feats = self.body(self.stem(x).relu_())
        box = self.box(feats)
        return dict(box=[box.exp()], refined=(self.refined(box).flatten(1).sigmoid(), ))


def names(model: nn.Module, layers) -> set[str]:
    return {name for name, module in model.named_modules() if module in layers}


def traced(image: Tensor) -> tuple[Net, Trace]:
    model = Net()
    with Trace(list(model.children())) as trace:
        trace.image = image
        trace.ends.append(model(image))
    return model, trace


def test_the_layers_behind_which_nothing_weighs_the_outputs_predict():
    model, trace = traced(torch.rand(1, 3, 2, 2))
    assert names(model, trace.predicting()) == {'box', 'refined'}


@pytest.mark.parametrize('image, is_integer', [(torch.full((1, 3, 2, 2), -7.), True),
                                               (torch.full((1, 3, 2, 2), .5), False)])
def test_the_layer_that_gets_the_image_is_the_first(image, is_integer):
    model, trace = traced(image)
    assert {
        next(iter(names(model, [layer]))): flag
        for layer, flag in trace.first.items()
    } == dict(stem=is_integer)


def test_a_relu_in_front_is_seen():
    model, trace = traced(torch.rand(1, 3, 2, 2))
    assert names(model, trace.maybe_negative) == {'stem', 'box', 'refined'}


@pytest.mark.parametrize('operator, can_be_negative', [
    (lambda x: nn.functional.max_pool2d(x.relu(), 2), False),
    (lambda x: nn.functional.interpolate(x.relu(), scale_factor=2), False),
    (lambda x: torch.cat([x.relu(), x.sigmoid()], 1)[:, 1:4], False),
    (lambda x: x.relu() + nn.functional.relu6(x), False),
    (lambda x: nn.functional.silu(x).mean((2, 3), keepdim=True) + 9, True),
    (lambda x: x.relu() - x.sigmoid(), True),
    (lambda x: x, True),
    (lambda x: x.relu().detach(), True),
])
def test_what_comes_out_of_operators(operator, can_be_negative):
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    with Trace([first, second]) as trace:
        second(operator(first(torch.rand(1, 3, 4, 4))))
    assert (second in trace.maybe_negative) is can_be_negative


def test_afterwards_no_hook_is_left():
    model, _ = traced(torch.rand(1, 3, 2, 2))
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_tensors_of_nested_outputs():
    one, two = torch.zeros(1), torch.zeros(2)
    assert [len(each) for each in tensors([dict(a=(one, [two])), None, 3, two])] == [1, 2, 2]
