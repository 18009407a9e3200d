"""The plan of a quantized conv: made once, and never that of another conv."""
from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmaqd.functional import FLOAT, ConvPlan, compile_kernels
from mmaqd.layers import QuantConv2d
from mmaqd.layers import quant_layer as module
from mmaqd.quantizers import LIQActivationQuantizer, LIQWeightQuantizer

X = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def conv() -> QuantConv2d:
    return QuantConv2d(
        4,
        4,
        3,
        weight_quantizer=LIQWeightQuantizer(4, start='constant'),
        input_quantizer=LIQActivationQuantizer(4, start='constant'))


@pytest.fixture
def plans(monkeypatch) -> list[ConvPlan]:
    """The plans that were made."""
    made = []
    monkeypatch.setattr(module, 'ConvPlan', lambda *args: made.append(ConvPlan(*args)) or made[-1])
    return made


def test_it_is_made_once(conv, plans) -> None:
    for _ in range(3):
        conv(X).sum().backward()
    assert len(plans) == 1


def stride(conv: QuantConv2d) -> None:
    conv.stride = (2, 2)


def padding(conv: QuantConv2d) -> None:
    conv.padding = (1, 1)


def dilation(conv: QuantConv2d) -> None:
    conv.dilation = (2, 2)


def groups(conv: QuantConv2d) -> None:
    conv.groups, conv.weight = 2, nn.Parameter(conv.weight[:, :2].detach().clone())


def kernel(conv: QuantConv2d) -> None:
    conv.weight_quantizer.kernel = replace(conv.weight_quantizer.kernel, bit_width=2)


def input_quantizer(conv: QuantConv2d) -> None:
    conv.input_quantizer = LIQActivationQuantizer(2, start='constant')


def no_quantizer(conv: QuantConv2d) -> None:
    conv.weight_quantizer = None


CHANGES = [stride, padding, dilation, groups, kernel, input_quantizer, no_quantizer]


@pytest.mark.parametrize('change', CHANGES, ids=lambda change: change.__name__)
def test_a_change_makes_another(conv, plans, change) -> None:
    before = conv(X)
    change(conv)
    after = conv(X)
    assert len(plans) == 2
    weight, x = conv.weight, conv.input_quantizer(X)
    if conv.weight_quantizer is not None:
        weight = conv.weight_quantizer(weight)
    expected = nn.functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation,
                                    conv.groups)
    assert torch.equal(after, expected)
    assert after.shape != before.shape or not torch.equal(after, before)


def test_a_compiled_kernel_is_another_although_it_is_equal(conv, plans) -> None:
    conv(X)
    compile_kernels(True, conv)
    assert conv._plan(conv.input_quantizer.kernel, FLOAT).input_kernel.is_compiled
    assert len(plans) == 2


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
def test_copies_make_their_own(conv, plans, copied) -> None:
    expected = conv(X)
    twin = copied(conv)
    assert torch.equal(twin(X), expected)
    assert len(plans) == 2


def test_asking_for_parameters_changes_none(conv) -> None:
    quantizer = conv.weight_quantizer
    quantizer.interval.data.fill_(-1.0)
    assert quantizer.kernel_parameters[0] == -1
    conv.eval()(X)
    assert quantizer.interval == -1
    conv.train()(X)
    assert quantizer.interval > 0


def test_a_module_that_is_no_quantizer_of_ours_is_called() -> None:
    conv = QuantConv2d(4, 4, 3, input_quantizer=nn.ReLU())
    assert torch.equal(
        conv(X - 0.5), nn.functional.conv2d((X - 0.5).relu(), conv.weight, conv.bias))
