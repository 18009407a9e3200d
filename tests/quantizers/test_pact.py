"""The PACT quantizer: arguments, starts."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import PACTActivationKernel
from mmaqd.quantizers import LIQActivationQuantizer, PACTActivationQuantizer, build_quantizer


@pytest.mark.parametrize('bits', [1, 9, '4', True], ids=repr)
def test_bad_bit_width(bits) -> None:
    with pytest.raises(ValueError, match='PACTActivationQuantizer: bit_width must be an integer'):
        PACTActivationQuantizer(bits)


def test_bad_start() -> None:
    with pytest.raises(ValueError, match="PACTActivationQuantizer: start .*'mean'"):
        PACTActivationQuantizer(4, start='mean')
    with pytest.raises(ValueError, match='start_value must be positive'):
        PACTActivationQuantizer(4, start_value=-1.0)


def test_default_is_the_start_of_the_paper() -> None:
    quantizer = build_quantizer(dict(type='mmaqd.PACTActivationQuantizer', bit_width=3))
    assert quantizer.kernel == PACTActivationKernel(3)
    assert quantizer.initialized
    assert quantizer.alpha == quantizer.interval == 10
    assert quantizer.scale == torch.tensor(10.0) / 7
    assert not quantizer.interval.requires_grad


@pytest.mark.parametrize('start', ['least_error', 'max'])
def test_starts_from_data_are_those_of_the_same_grid_in_liq(start: str) -> None:
    quantizer, liq = PACTActivationQuantizer(4, start), LIQActivationQuantizer(4, start)
    for each in (quantizer, liq):
        assert not each.initialized
        each.observe(torch.linspace(0, 3, 500).square())
        each.initialize()
    assert torch.equal(quantizer.alpha, liq.interval)


def test_negative_input_is_refused_while_calibrating() -> None:
    quantizer = PACTActivationQuantizer(4, start='max')
    quantizer.name = 'neck.conv.input_quantizer'
    with pytest.raises(ValueError, match=r'neck\.conv\.input_quantizer: .*negative'):
        quantizer.observe(torch.tensor([1.0, -0.1]))


def test_it_stays_positive_under_an_optimizer_that_counts_no_version() -> None:
    quantizer = PACTActivationQuantizer(4)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e3, fused=True)
    for _ in range(2):
        quantizer(torch.full((8, ), 100.0)).sum().backward()  # alpha shrinks
        optimizer.step()
        assert quantizer.alpha.item() < 0
        quantizer(torch.rand(8))
        assert quantizer.alpha.item() == pytest.approx(1e-6)


def test_training_keeps_alpha_positive() -> None:
    quantizer = PACTActivationQuantizer(4)
    with torch.no_grad():
        quantizer.alpha.fill_(-0.3)
    quantizer(torch.rand(8))
    assert quantizer.alpha.item() == pytest.approx(1e-6)
