"""The modules that stand in for quantizers while these look at their data."""
from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

from mmaqd.layers import MultiLevelQuantizer, QuantConv2d
from mmaqd.quantizers import (LIQActivationQuantizer, LIQWeightQuantizer, PACTActivationQuantizer,
                              Quantizer, StreamQuantizer, calibrating, watch)
from mmaqd.quantizers.observers import Inspector, Observer, stand_ins

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)) + 0.1


def make(**changes: nn.Module | None) -> QuantConv2d:
    quantizers = dict(
        weight_quantizer=LIQWeightQuantizer(4), input_quantizer=LIQActivationQuantizer(4))
    return QuantConv2d(3, 4, 3, **{**quantizers, **changes})


def quantizers_of(model: nn.Module) -> list[Quantizer]:
    return [each for each in model.modules() if isinstance(each, Quantizer)]


def test_they_are_there_within_the_block_only() -> None:
    model = nn.Sequential(make(), LIQActivationQuantizer(4))
    names, modules = zip(*model.named_modules())
    with suppress(KeyError), stand_ins(model, quantizers_of(model)):
        assert type(model[1]) is type(model[0].input_quantizer) is Observer
        raise KeyError
    assert tuple(model.named_modules()) == tuple(zip(names, modules))


def test_the_conv_is_that_of_torch_and_both_take_samples() -> None:
    conv = make()
    with stand_ins(conv, quantizers_of(conv)):
        out = conv(X)
    assert torch.equal(out, nn.functional.conv2d(X, conv.weight, conv.bias))
    assert conv.input_quantizer.has_samples and conv.weight_quantizer.has_samples


def test_who_has_values_quantizes_while_the_other_observes() -> None:
    conv = make(weight_quantizer=LIQWeightQuantizer(2, start='constant'))
    with stand_ins(conv, quantizers_of(conv)), torch.no_grad():
        for training in (True, False):
            conv.train(training)
            with conv.quantize_weight_once():
                out = conv(X)
            expected = nn.functional.conv2d(X, conv.weight_quantizer(conv.weight), conv.bias)
            assert torch.equal(out, expected)


def test_gradients_pass_an_observer() -> None:
    conv, x = make(), X.clone().requires_grad_()
    with stand_ins(conv, quantizers_of(conv)):
        conv(x).sum().backward()
    assert x.grad.abs().sum() > 0 and conv.input_quantizer.interval.grad is None


def test_negative_values_are_noted_and_not_raised() -> None:
    quantizer = LIQActivationQuantizer(4)
    Observer(quantizer)(torch.tensor([-0.25, 1.0]))
    assert quantizer.lowest == -0.25 and quantizer.has_samples
    with pytest.raises(ValueError, match='must not be negative'):
        quantizer.observe(torch.tensor([-0.25, 1.0]))
    with pytest.raises(ValueError, match='NaN or infinity'):
        Observer(quantizer)(torch.tensor([float('nan')]))


def test_an_empty_tensor_says_nothing() -> None:
    quantizer = LIQActivationQuantizer(4)
    assert Observer(quantizer)(torch.empty(0, 3)).shape == (0, 3)
    assert not quantizer.has_samples


def test_an_inspector_quantizes_and_does_not_log(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(watch, 'print_log', lambda text, *_, **__: said.append(text))
    quantizer = PACTActivationQuantizer(4, start='constant', start_value=2.0)
    x = X - 0.3
    found = Inspector(quantizer)(x)
    assert quantizer.lowest == x.min() and not said
    assert torch.equal(found, quantizer(x)) and len(said) == 1


def test_each_level_has_its_own() -> None:
    quantizer = MultiLevelQuantizer(2, dict(type='mmaqd.LIQActivationQuantizer', bit_width=4))
    conv = make(weight_quantizer=None, input_quantizer=quantizer)
    quantizer[0].observe(X)
    quantizer[0].initialize()
    with stand_ins(conv, quantizers_of(conv)), torch.no_grad():
        for level, expected in enumerate((quantizer[0].quantizer.fake_quantize(X), X)):
            quantizer.level = level
            assert torch.equal(conv(X), nn.functional.conv2d(expected, conv.weight, conv.bias))
    assert quantizer[1].has_samples and not quantizer[0].has_samples


def test_a_hook_that_holds_the_owner_finds_the_stand_in() -> None:
    model = nn.Sequential(StreamQuantizer(8), nn.ReLU())
    model[1].register_forward_hook(lambda *call: model[0](call[-1], nonnegative=True))
    with calibrating(model) as pending:
        assert torch.equal(model(X), X)
    assert pending == [model[0]]
    torch.testing.assert_close(model[0].step_size.detach(), X.max() / 127)


def test_a_quantizer_alone_is_told_what_to_call() -> None:
    with pytest.raises(
            TypeError, match='observe.*initialize'), calibrating(LIQActivationQuantizer(4)):
        pass
