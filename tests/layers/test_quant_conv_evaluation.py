"""QuantConv2d in evaluation: the weights are quantized once and kept until they change."""
from __future__ import annotations

import copy
import pickle
from collections import Counter
from dataclasses import replace

import pytest
import torch

from mmaqd.functional import LIQWeightKernel
from mmaqd.layers import QuantConv2d
from tests.helpers.counting import count_quantizations


@pytest.fixture
def conv() -> QuantConv2d:
    torch.manual_seed(0)
    weight = dict(type='LIQWeightQuantizer', bit_width=4, start='constant')
    inputs = dict(type='LIQActivationQuantizer', bit_width=4, start='constant')
    return QuantConv2d(3, 4, 3, weight_quantizer=weight, input_quantizer=inputs).eval()


@pytest.fixture
def quantized(monkeypatch) -> Counter:
    """How often weights were quantized."""
    return count_quantizations(monkeypatch, LIQWeightKernel)


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def fresh_output(conv: QuantConv2d) -> torch.Tensor:
    """What a conv computes that has never kept anything."""
    twin = copy.deepcopy(conv).eval()
    with torch.no_grad():
        return twin(X)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_quantizes_once(conv, quantized, mode):
    with mode():
        first, second = conv(X), conv(X)
    assert quantized.total() == 1
    assert torch.equal(first, second)


def write_in_place(conv):
    conv.weight.mul_(-1)


def step(conv):
    for parameter in conv.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(conv.parameters(), lr=0.1).step()


def load(conv):
    conv.load_state_dict({
        name: value + 0.25 if value.is_floating_point() else value
        for name, value in conv.state_dict().items()
    })


def widen_interval(conv):
    conv.weight_quantizer.interval.mul_(2)


def write_data(conv):
    """What MMEngine's averaged models do; autograd's version counter does not notice."""
    conv.weight.data.copy_(-conv.weight.data)


def to_double_and_back(conv):
    conv.double().weight.mul_(-1)
    conv.float()


def other_kernel(conv):
    conv.weight_quantizer.kernel = replace(conv.weight_quantizer.kernel, bit_width=2)


def replace_data(conv):
    conv.weight.data = -conv.weight.data


@pytest.mark.parametrize(
    'change', [
        write_in_place, step, load, widen_interval, write_data, replace_data, to_double_and_back,
        other_kernel
    ],
    ids=lambda change: change.__name__)
def test_notices_a_change(conv, change):
    with torch.no_grad():
        before = conv(X)
        change(conv)
        after = conv(X)
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh_output(conv))


def test_keeps_nothing_for_training(conv, quantized):
    with torch.no_grad():
        conv(X)
    conv.train()
    conv(X).sum().backward()
    assert quantized.total() == 3  # evaluation; forward, backward
    assert conv.weight.grad is not None


def test_evaluation_with_gradients_reaches_the_weights(conv):
    conv(X).sum().backward()
    assert conv.weight.grad is not None


def test_sharing_in_evaluation_uses_what_is_kept(conv, quantized):
    with torch.no_grad():
        conv(X)
        with conv.quantize_weight_once():
            conv(X)
        conv(X)
    assert quantized.total() == 1


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))],
    ids=['deepcopy', 'pickle'])
def test_copies_do_not_carry_kept_weights(conv, copied):
    size = len(pickle.dumps(conv))
    with torch.no_grad():
        expected = conv(X)
        twin = copied(conv)
        assert len(pickle.dumps(conv)) == size
        twin.weight.mul_(-1)
        assert not torch.equal(twin(X), expected)
        assert torch.equal(conv(X), expected)
