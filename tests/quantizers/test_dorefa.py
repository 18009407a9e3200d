"""The DoReFa quantizers: arguments, and that nothing is learned."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import DoReFaActivationKernel, DoReFaWeightKernel
from mmaqd.quantizers import (DoReFaActivationQuantizer, DoReFaWeightQuantizer, build_quantizer,
                              calibrate)

both = pytest.mark.parametrize('quantizer_class',
                               [DoReFaActivationQuantizer, DoReFaWeightQuantizer])


@both
@pytest.mark.parametrize('bits', [1, 9, '4', True], ids=repr)
def test_bad_bit_width(quantizer_class, bits) -> None:
    with pytest.raises(
            ValueError, match=f'{quantizer_class.__name__}: bit_width must be an integer from 2'):
        quantizer_class(bits)


@pytest.mark.parametrize('clip', [0, -1.0, float('nan'), float('inf')])
def test_bad_clip(clip) -> None:
    with pytest.raises(ValueError, match='DoReFaActivationQuantizer: clip must be positive'):
        DoReFaActivationQuantizer(4, clip=clip)


def test_config_reaches_the_kernel() -> None:
    inputs = build_quantizer(dict(type='mmaqd.DoReFaActivationQuantizer', bit_width=3, clip=6))
    assert inputs.kernel == DoReFaActivationKernel(3, 6.0)
    assert DoReFaActivationQuantizer(3).kernel == DoReFaActivationKernel(3, 1.0)
    weight = build_quantizer(dict(type='mmaqd.DoReFaWeightQuantizer', bit_width=3), num_channels=6)
    assert weight.kernel == DoReFaWeightKernel(3)


@both
def test_nothing_is_learned_and_nothing_is_calibrated(quantizer_class) -> None:
    quantizer = quantizer_class(4)
    assert quantizer.initialized
    assert not list(quantizer.parameters())
    assert quantizer.kernel_parameters == ()
    assert calibrate(quantizer, [torch.rand(3)], lambda model, x: model(x)) == 0


@both
def test_gradient_passes_to_the_input(quantizer_class) -> None:
    x = torch.rand(3, 4, requires_grad=True)
    quantizer_class(4)(x).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize('bits', [2, 8])
def test_interval_and_scale(bits: int) -> None:
    inputs = DoReFaActivationQuantizer(bits, clip=3)
    assert inputs.interval == 3
    assert inputs.scale == torch.tensor(3 / (2**bits - 1))
    weight = DoReFaWeightQuantizer(bits)
    assert weight.interval == 1
    assert weight.scale == torch.tensor(1 / min(2**bits - 1, 127))


def test_interval_and_scale_lie_where_the_quantizer_is() -> None:
    quantizer = DoReFaActivationQuantizer(4).to('meta')
    assert quantizer.interval.device.type == quantizer.scale.device.type == 'meta'


def test_repr_tells_the_clip() -> None:
    assert repr(DoReFaActivationQuantizer(
        3, clip=6)) == ('DoReFaActivationQuantizer(bit_width=3, per_tensor, clip=6.0)')
    assert repr(DoReFaWeightQuantizer(3)) == 'DoReFaWeightQuantizer(bit_width=3, per_tensor)'
