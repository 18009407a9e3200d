"""Quantizers of weights of which only the codes are left: every family, every width."""
from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch

from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import (STORED_SCALE, CheckpointMismatchError, PackedWeightsError,
                              UninitializedIntervalError, WeightQuantizer, build_quantizer)

CHANNELS = 5
FAMILIES = {
    'liq': dict(type='mmaqd.LIQWeightQuantizer'),
    'liq_std': dict(type='mmaqd.LIQWeightQuantizer', center=False),
    'liq_plain': dict(type='mmaqd.LIQWeightQuantizer', normalize=False),
    'liq_channels': dict(type='mmaqd.LIQWeightQuantizer', axis=0),
    'lsq': dict(type='mmaqd.LSQWeightQuantizer'),
    'lsq_channels': dict(type='mmaqd.LSQWeightQuantizer', axis=0),
    'lsq_plus': dict(type='mmaqd.LSQPlusWeightQuantizer'),
    'dorefa': dict(type='mmaqd.DoReFaWeightQuantizer'),
}


def quantizer_of(family: str, bits: int = 4, weight: torch.Tensor | None = None) -> WeightQuantizer:
    quantizer = build_quantizer(dict(FAMILIES[family], bit_width=bits), num_channels=CHANNELS)
    if weight is not None and quantizer.learned:
        quantizer.observe(weight)
        quantizer.initialize()
    return quantizer.eval()


def weights(seed: int = 0, offset: float = 0.05) -> torch.Tensor:
    return torch.randn(CHANNELS, 3, 3, 3, generator=torch.manual_seed(seed)) * 0.2 + offset


@pytest.mark.parametrize('bits', range(2, 9))
@pytest.mark.parametrize('family', FAMILIES)
def test_evaluates_as_before(family, bits):
    for seed in range(5):
        weight = weights(seed)
        quantizer = quantizer_of(family, bits, weight)
        before, codes, scale = quantizer(weight), quantizer.quantize(weight), quantizer.scale
        quantizer.store_codes(weight)
        assert torch.equal(weight, before)
        assert torch.equal(quantizer(weight), before)
        assert torch.equal(quantizer.quantize(weight), codes)
        assert torch.equal(quantizer.scale, scale) and quantizer.bit_width == bits


@pytest.mark.parametrize('weight', [
    torch.zeros(CHANNELS, 2, 1, 1),
    torch.full((CHANNELS, 2, 1, 1), 3.),
    torch.full((CHANNELS, 2, 1, 1), -1e-9),
    torch.arange(CHANNELS * 2.).view(CHANNELS, 2, 1, 1) * 1e6,
])
@pytest.mark.parametrize('family', FAMILIES)
def test_strange_weights(family, weight):
    weight = weight.clone()
    quantizer = quantizer_of(family, 2, weights())
    before = quantizer(weight)
    quantizer.store_codes(weight)
    assert torch.equal(weight, before) and torch.equal(quantizer(weight), before)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_state_says_so(family):
    weight = weights()
    stored, fresh = quantizer_of(family, 3, weight), quantizer_of(family, 3)
    whole = copy.deepcopy(stored.state_dict())
    assert STORED_SCALE not in whole
    stored.store_codes(weight)
    state = stored.state_dict()
    assert state.keys() == {*whole, STORED_SCALE}
    fresh.load_state_dict(state)
    for each in (fresh, copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert torch.equal(each(weight), weight) and 'stored codes' in repr(each)
    fresh.load_state_dict(whole)
    assert fresh.stored_scale is None and fresh.kernel == quantizer_of(family, 3).kernel
    assert fresh.state_dict().keys() == whole.keys()


def test_the_state_of_a_float_model_ends_it():
    conv = QuantConv2d(3, CHANNELS, 3, weight_quantizer=dict(FAMILIES['liq'], bit_width=2)).eval()
    conv.weight_quantizer.initialized.fill_(True)
    float_state = {key: value.clone() for key, value in conv.state_dict().items()
                   if 'quantizer' not in key}  # yapf: disable
    conv.weight_quantizer.store_codes(conv.weight)
    conv.load_state_dict(float_state)
    assert conv.weight_quantizer.stored_scale is None
    conv.train()(torch.ones(1, 3, 4, 4)).sum().backward()


@pytest.mark.parametrize('grad', [True, False])
def test_training_is_refused_by_name(grad):
    conv = QuantConv2d(3, CHANNELS, 3, weight_quantizer=dict(FAMILIES['liq'], bit_width=3))
    conv.weight_quantizer.name = 'neck.conv.weight_quantizer'
    conv.weight_quantizer.initialized.fill_(True)
    conv.weight_quantizer.store_codes(conv.weight)
    x = torch.ones(1, 3, 4, 4)
    assert conv.eval()(x).isfinite().all()
    with torch.set_grad_enabled(grad), pytest.raises(
            PackedWeightsError, match=r'neck\.conv.*3-bit codes.*TrainPackedHook'):
        conv.train()(x)


def test_the_shared_weight_is_refused_too():
    conv = QuantConv2d(3, CHANNELS, 3, weight_quantizer=dict(FAMILIES['lsq'], bit_width=3))
    conv.weight_quantizer.initialized.fill_(True)
    conv.weight_quantizer.store_codes(conv.weight)
    with pytest.raises(PackedWeightsError), conv.quantize_weight_once():
        pass


def test_without_an_interval():
    with pytest.raises(UninitializedIntervalError):
        quantizer_of('liq').store_codes(weights())


@pytest.mark.parametrize('scale', [
    torch.tensor(0.), torch.tensor(-1.), torch.tensor(float('nan')), torch.ones(2),
    torch.ones(CHANNELS, 1), torch.ones(0)
])  # yapf: disable
def test_a_scale_that_is_none(scale):
    weight = weights()
    quantizer = quantizer_of('liq_channels', 4, weight)
    before = quantizer(weight)
    with pytest.raises(CheckpointMismatchError, match='block.q: the stored_scale'):
        quantizer.check_state('block.q', {**quantizer.state_dict(), STORED_SCALE: scale})
    with pytest.raises(CheckpointMismatchError):
        quantizer.load_state_dict({**quantizer.state_dict(), STORED_SCALE: scale})
    assert torch.equal(quantizer(weight), before)


def test_grid_points_that_are_no_codes_are_refused():
    weight = weights()
    quantizer = quantizer_of('liq_plain', 4, weight)
    quantizer.kernel = ShiftedKernel(quantizer.kernel)
    with pytest.raises(ValueError, match='not a scale times codes'):
        quantizer.store_codes(weight)


class ShiftedKernel:
    """A user's kernel whose grid points are not codes times a scale."""

    def __init__(self, kernel):
        self.inner = kernel

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def bind(self, x, *parameters):
        return SimpleNamespace(fake_quantize=lambda x: self.inner.forward(x, *parameters) + 0.01)
