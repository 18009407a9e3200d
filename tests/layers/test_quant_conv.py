"""The quantized conv as a layer: a Conv2d, with quantizers in front of both operands."""
from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmaqd.functional import LIQWeightKernel
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import (LIQActivationQuantizer, LIQWeightQuantizer,
                              UninitializedIntervalError, calibrate)
from mmaqd.registry import MODELS

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, start='constant', start_value=1.5)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, start='constant', start_value=0.8)
BOTH = dict(weight_quantizer=WEIGHT, input_quantizer=INPUT)
SIDES = {
    'both': BOTH,
    'weight_only': dict(weight_quantizer=WEIGHT),
    'input_only': dict(input_quantizer=INPUT),
    'float': {},
    'per_channel': dict(weight_quantizer=dict(WEIGHT, axis=0), input_quantizer=INPUT),
}
SHAPES = {
    'plain': dict(),
    'strided': dict(stride=2, padding=1),
    'dilated': dict(padding=(2, 1), dilation=(2, 1)),
    'grouped': dict(padding=1, groups=2),
    'no_bias': dict(bias=False),
    'same': dict(padding='same'),
    'valid': dict(padding='valid'),
    'reflect': dict(padding=2, padding_mode='reflect'),
    'circular': dict(padding=(1, 2), padding_mode='circular', stride=2),
}


def reference(conv: QuantConv2d, x: Tensor) -> Tensor:
    """Quantizers, then a float conv that has the same arguments."""
    weight = conv.weight
    if conv.input_quantizer is not None:
        x = conv.input_quantizer(x)
    if conv.weight_quantizer is not None:
        weight = conv.weight_quantizer(weight)
    padding = conv.padding
    if conv.padding_mode != 'zeros':
        height, width = padding
        x, padding = F.pad(x, (width, width, height, height), conv.padding_mode), 0
    return F.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)


def assert_same(conv: QuantConv2d, x: Tensor) -> None:
    leaves = [x.requires_grad_(), *conv.parameters()]
    found, expected = conv(x), reference(conv, x)
    assert torch.equal(found, expected)
    upstream = torch.randn_like(found)
    for one, other in zip(
            torch.autograd.grad(found, leaves, upstream),
            torch.autograd.grad(expected, leaves, upstream)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize('sides', SIDES.values(), ids=SIDES.keys())
def test_equals_quantizers_and_conv(shape: dict, sides: dict, device: torch.device) -> None:
    conv = QuantConv2d(4, 6, 3, **shape, **sides).to(device).double()
    assert_same(conv, torch.randn(2, 4, 8, 7, dtype=torch.float64, device=device))


def test_without_quantizers_it_is_a_conv() -> None:
    conv, x = nn.Conv2d(2, 3, 3, padding=1), torch.randn(2, 2, 5, 5)
    assert torch.equal(QuantConv2d.from_conv(conv)(x), conv(x))


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())
def test_from_conv_takes_every_argument(shape: dict) -> None:
    conv = nn.Conv2d(4, 6, (3, 1), **shape).eval()
    quant_conv = QuantConv2d.from_conv(conv, WEIGHT, INPUT)
    for name in ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation',
                 'groups', 'padding_mode', 'training'):
        assert getattr(quant_conv, name) == getattr(conv, name), name
    x = torch.rand(1, 4, 6, 6)
    quant_conv.weight_quantizer = quant_conv.input_quantizer = None
    assert torch.equal(quant_conv(x), conv(x))


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no_bias'])
def test_from_conv_shares_the_parameters(bias: bool) -> None:
    conv = nn.Conv2d(2, 3, 3, bias=bias)
    conv.weight.requires_grad_(False)
    quant_conv = QuantConv2d.from_conv(conv, WEIGHT, INPUT)
    assert quant_conv.weight is conv.weight
    assert quant_conv.bias is conv.bias
    assert not any(parameter.is_meta for parameter in quant_conv.parameters())
    quant_conv(torch.rand(1, 2, 5, 5)).sum().backward()
    assert quant_conv.weight.grad is None


def test_from_conv_puts_the_quantizers_where_the_conv_is() -> None:
    """The meta device stands for a GPU."""
    quant_conv = QuantConv2d.from_conv(nn.Conv2d(2, 3, 3, device='meta'), WEIGHT, INPUT)
    tensors = [*quant_conv.parameters(), *quant_conv.buffers()]
    assert {tensor.device.type for tensor in tensors} == {'meta'}


def test_parameter_names_of_a_conv_stay() -> None:
    names = QuantConv2d(2, 3, 3, **BOTH).state_dict().keys()
    assert nn.Conv2d(2, 3, 3).state_dict().keys() <= names
    assert all(
        name.startswith(('weight_quantizer.', 'input_quantizer.'))
        for name in names - {'weight', 'bias'})


def test_quantizers_may_be_modules() -> None:
    weight = LIQWeightQuantizer(4, axis=0, num_channels=3, start='constant')
    inputs = LIQActivationQuantizer(4, start='constant')
    conv = QuantConv2d(2, 3, 3, weight_quantizer=weight, input_quantizer=inputs)
    assert conv.weight_quantizer is weight
    assert conv.input_quantizer is inputs


def test_registry_and_conv_module_build_it() -> None:
    assert isinstance(
        MODELS.build(dict(type='mmaqd.QuantConv2d', in_channels=2, out_channels=3, kernel_size=1)),
        QuantConv2d)
    module = ConvModule(
        2,
        3,
        3,
        padding=1,
        norm_cfg=dict(type='BN'),
        conv_cfg=dict(type='mmaqd.QuantConv2d', **BOTH))
    assert isinstance(module.conv, QuantConv2d)
    assert module(torch.rand(2, 2, 5, 5)).shape == (2, 3, 5, 5)


@pytest.mark.parametrize('padding', [0, 'same'], ids=['fused', 'composed'])
def test_uninitialized_is_an_error(padding) -> None:
    conv = QuantConv2d(
        2, 3, 3, padding=padding, weight_quantizer=dict(type='LIQWeightQuantizer', bit_width=4))
    with pytest.raises(UninitializedIntervalError, match='never initialized'):
        conv(torch.rand(1, 2, 5, 5))


def test_while_calibrating_it_is_the_float_conv() -> None:
    cfg = dict(type='LIQActivationQuantizer', bit_width=4)
    conv = QuantConv2d(
        2, 3, 3, input_quantizer=cfg, weight_quantizer=dict(type='LIQWeightQuantizer', bit_width=4))
    x, seen = torch.rand(2, 2, 5, 5), []
    calibrate(conv, [x], lambda model, batch: seen.append(model(batch)))
    assert torch.equal(seen[0], F.conv2d(x, conv.weight, conv.bias))
    assert_same(conv.double(), x.double())


@dataclass(frozen=True)
class CountingKernel(LIQWeightKernel):
    """Counts how often weights are quantized."""

    calls: list = field(default_factory=list)

    def _write_codes(self, *args: Any) -> None:
        self.calls.append(1)
        super()._write_codes(*args)


def make_counted() -> tuple[QuantConv2d, list]:
    conv = QuantConv2d(2, 3, 3, padding=1, **BOTH).double()
    conv.weight_quantizer.kernel = CountingKernel(4, normalize=True)
    return conv, conv.weight_quantizer.kernel.calls


LEVELS = [torch.rand(2, 2, size, size).double() for size in (8, 4, 2)]


def test_quantize_weight_once_over_levels() -> None:
    conv, calls = make_counted()
    with conv.quantize_weight_once():
        outs = [conv(level) for level in LEVELS]
    assert len(calls) == 1
    sum(out.sum() for out in outs).backward()
    assert len(calls) == 2


def test_quantize_weight_once_changes_no_number() -> None:
    conv, _ = make_counted()
    results = []
    for once in (False, True):
        conv.zero_grad()
        if once:
            with conv.quantize_weight_once():
                outs = [conv(level) for level in LEVELS]
        else:
            outs = [conv(level) for level in LEVELS]
        sum(out.pow(2).sum() for out in outs).backward()
        results.append([*outs, *(parameter.grad for parameter in conv.parameters())])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)  # sums in another order


def test_one_block_serves_autocast_and_float32() -> None:
    conv, x = QuantConv2d(2, 3, 3, **BOTH), torch.rand(2, 2, 5, 5)
    with conv.quantize_weight_once():
        with torch.autocast('cpu', torch.bfloat16):
            assert conv(x).dtype == torch.bfloat16
        inside = conv(x)
    assert torch.equal(inside, conv(x))


def test_weights_may_change_after_the_block() -> None:
    conv, calls = make_counted()
    for _ in range(2):
        with conv.quantize_weight_once(), torch.no_grad():
            out = conv(LEVELS[0])
        assert torch.equal(out, reference(conv, LEVELS[0]))
        with torch.no_grad():
            conv.weight.copy_(torch.randn_like(conv.weight))
    assert not torch.equal(conv(LEVELS[0]), out)


def test_block_ends_after_an_error_too() -> None:
    conv, calls = make_counted()
    with pytest.raises(RuntimeError, match='stop'), conv.quantize_weight_once():
        conv(LEVELS[0])
        raise RuntimeError('stop')
    calls.clear()
    conv(LEVELS[0])
    conv(LEVELS[1])
    assert len(calls) == 2


@pytest.mark.parametrize('sides', SIDES.values(), ids=SIDES.keys())
def test_eval_and_no_grad_give_the_numbers_of_training(sides: dict) -> None:
    conv, x = QuantConv2d(2, 3, 3, **sides), torch.rand(2, 2, 5, 5)
    expected = conv(x)
    with torch.no_grad():
        assert torch.equal(conv.eval()(x), expected)


@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=['deepcopy', 'pickle'])
def test_copies_are_equal(duplicate: Any) -> None:
    conv, x = QuantConv2d(2, 3, 3, **BOTH), torch.rand(2, 2, 5, 5)
    assert torch.equal(duplicate(conv)(x), conv(x))


def test_autocast() -> None:
    conv, x = QuantConv2d(2, 3, 3, **BOTH), torch.rand(2, 2, 5, 5)
    expected = conv(x)
    with torch.autocast('cpu', torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.03, atol=0.03)


def test_unknown_quantizer_key_is_an_error() -> None:
    with pytest.raises(TypeError, match='unknown key.* bits'):
        QuantConv2d(2, 3, 3, weight_quantizer=dict(type='LIQWeightQuantizer', bits=4))
