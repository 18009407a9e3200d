"""Signed activations as an option of the quantizers: start, state, messages."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.functional import LIQActivationKernel
from mmaqd.layers import MultiLevelQuantizer, QuantConv2d
from mmaqd.quantizers import (CheckpointMismatchError, LIQActivationQuantizer,
                              LSQActivationQuantizer, LSQPlusActivationQuantizer,
                              PACTActivationQuantizer, build_quantizer, state_interval)

FAMILIES = [LIQActivationQuantizer, LSQActivationQuantizer]
families = pytest.mark.parametrize('family', FAMILIES)


def started(family: type, x: torch.Tensor, **options) -> nn.Module:
    quantizer = family(4, signed=True, **options)
    quantizer.observe(x)
    quantizer.initialize()
    return quantizer


@families
def test_max_clips_at_a_part_of_the_greatest_magnitude(family: type) -> None:
    quantizer = started(family, torch.tensor([-5.0, 1.0]), start='max')
    top = quantizer.scale * quantizer.grid.qmax
    torch.testing.assert_close(top, torch.tensor(4.0))


def test_mean_starts_as_in_the_paper_of_lsq() -> None:
    quantizer = started(LSQActivationQuantizer, torch.tensor([-3.0, 1.0]), start='mean')
    torch.testing.assert_close(quantizer.step_size.detach(), torch.tensor(2 * 2.0 / 7**0.5))


@families
def test_least_error_is_the_best_of_a_fine_grid(family: type) -> None:
    x = torch.randn(2000)
    quantizer = started(family, x, start='least_error')

    def error(parameter: torch.Tensor) -> torch.Tensor:
        return (quantizer.kernel.forward(x, parameter) - x).square().sum()

    own = quantizer.learned_parameters[0].detach()
    assert all(error(own) <= 1.01 * error(own * factor) for factor in torch.linspace(0.5, 2, 61))


@families
def test_codes_times_scale_is_the_output(family: type) -> None:
    x = torch.randn(50)
    quantizer = started(family, x, start='max').eval()
    codes = quantizer.quantize(x)
    assert codes.dtype == torch.int8 and codes.min() < 0
    torch.testing.assert_close(codes * quantizer.scale, quantizer(x).detach())


@families
def test_state_has_a_constant_only_when_signed(family: type) -> None:
    assert 'signed' not in family(4).state_dict()
    assert family(4, signed=True).state_dict()['signed'] == 1
    assert 'signed' in repr(family(4, signed=True)) and 'signed' not in repr(family(4))


@families
@pytest.mark.parametrize('saved', [False, True], ids=['unsigned saved', 'signed saved'])
def test_a_state_of_other_signedness_is_refused(family: type, saved: bool) -> None:
    model = nn.Sequential(family(4, signed=not saved, start='constant'))
    state = nn.Sequential(family(4, signed=saved, start='constant')).state_dict()
    words = ['unsigned', 'signed'][::-1 if saved else 1]
    with pytest.raises(
            CheckpointMismatchError,
            match=f'^0: .*holds a quantizer with {words[0]} codes.*one with {words[1]}.*Set signed'
    ):
        model.load_state_dict(state)
    own = nn.Sequential(family(4, signed=saved))
    own.load_state_dict(state)
    assert own[0].initialized


@families
@pytest.mark.parametrize('signed', [False, True])
def test_state_interval_is_the_interval(family: type, signed: bool) -> None:
    quantizer = family(4, signed=signed, start='constant', start_value=0.5)
    found = state_interval(quantizer.state_dict(), is_weight=False)
    assert torch.equal(found, quantizer.interval)


def test_a_signed_input_of_lsq_reaches_to_eight_steps_at_four_bits() -> None:
    quantizer = LSQActivationQuantizer(4, signed=True, start='constant', start_value=0.5)
    assert quantizer.interval == 4.0


def test_the_refusal_of_negative_inputs_names_the_ways_out() -> None:
    for quantizer in (LIQActivationQuantizer(4), LSQActivationQuantizer(4)):
        with pytest.raises(ValueError, match='signed=True.*mmaqd.LSQPlusActivationQuantizer'):
            quantizer.observe(torch.tensor([-1.0]))


def test_other_families_have_no_such_option() -> None:
    for name in ('PACT', 'LSQPlus', 'DoReFa'):
        with pytest.raises(TypeError, match='unknown key.* signed'):
            build_quantizer(dict(type=f'{name}ActivationQuantizer', bit_width=4, signed=True))
    assert LSQPlusActivationQuantizer(4).kernel.takes_negative
    assert not PACTActivationQuantizer(4).kernel.takes_negative


def test_levels_of_a_pyramid_can_be_signed() -> None:
    cfg = dict(type='mmaqd.LIQActivationQuantizer', bit_width=3, signed=True, start='constant')
    quantizer = MultiLevelQuantizer(2, cfg)
    assert quantizer.kernel == LIQActivationKernel(3, signed=True)
    single = build_quantizer(cfg)
    quantizer.load_state_dict(single.state_dict())
    with pytest.raises(CheckpointMismatchError, match='unsigned codes'):
        quantizer.load_state_dict(build_quantizer(dict(cfg, signed=False)).state_dict())


@families
def test_a_conv_trains_with_signed_inputs(family: type) -> None:
    conv = QuantConv2d(2, 3, 3, padding=1, input_quantizer=family(4, signed=True, start='constant'))
    x = torch.randn(2, 2, 5, 5)
    out = conv(x)
    torch.testing.assert_close(
        out, nn.functional.conv2d(conv.input_quantizer(x), conv.weight, conv.bias, padding=1))
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())
