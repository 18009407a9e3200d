"""The LSQ and LSQ+ quantizers: arguments, starts."""
from __future__ import annotations

import math

import pytest
import torch

from mmaqd.functional import LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel
from mmaqd.quantizers import (LSQActivationQuantizer, LSQPlusActivationQuantizer,
                              LSQPlusWeightQuantizer, LSQWeightQuantizer, base, build_quantizer)

WEIGHTS = [LSQWeightQuantizer, LSQPlusWeightQuantizer]
ALL = [LSQActivationQuantizer, LSQPlusActivationQuantizer, *WEIGHTS]
every = pytest.mark.parametrize('quantizer_class', ALL)
weights = pytest.mark.parametrize('quantizer_class', WEIGHTS)
widths = pytest.mark.parametrize('bits', [2, 4, 8])


def observe(quantizer, *tensors) -> torch.Tensor:
    """Let the quantizer see tensors and start its step size from them."""
    for x in tensors:
        quantizer.observe(x)
    quantizer.initialize()
    return quantizer.step_size.detach()


@every
@pytest.mark.parametrize('bits', [1, 9, '4', True], ids=repr)
def test_bad_bit_width(quantizer_class, bits) -> None:
    with pytest.raises(
            ValueError, match=f'{quantizer_class.__name__}: bit_width must be an integer from 2'):
        quantizer_class(bits)


@every
def test_bad_start(quantizer_class) -> None:
    with pytest.raises(ValueError, match=f"{quantizer_class.__name__}: start .*'median'"):
        quantizer_class(4, start='median')
    with pytest.raises(ValueError, match='start_value must be positive'):
        quantizer_class(4, start='constant', start_value=0.0)


def test_starts_of_one_paper_are_not_those_of_the_other() -> None:
    for quantizer_class, start in ((LSQWeightQuantizer, 'three_sigma'),
                                   (LSQPlusWeightQuantizer, 'mean'), (LSQPlusActivationQuantizer,
                                                                      'max')):
        with pytest.raises(ValueError, match=f'start must be one of .* but got .{start}'):
            quantizer_class(4, start=start)


@weights
def test_bad_axis(quantizer_class) -> None:
    with pytest.raises(ValueError, match=f'{quantizer_class.__name__}: axis must be None'):
        quantizer_class(4, axis=1, num_channels=3)
    with pytest.raises(ValueError, match=f'{quantizer_class.__name__}: axis=0 needs num_channels'):
        quantizer_class(4, axis=0)


@pytest.mark.parametrize(
    ('cfg', 'kernel'),
    [(dict(type='mmaqd.LSQWeightQuantizer', bit_width=3, axis=0), LSQWeightKernel(3, 0)),
     (dict(type='mmaqd.LSQPlusWeightQuantizer', bit_width=3), LSQWeightKernel(3)),
     (dict(type='mmaqd.LSQActivationQuantizer', bit_width=5), LSQActivationKernel(5)),
     (dict(type='mmaqd.LSQPlusActivationQuantizer', bit_width=2), LSQPlusActivationKernel(2))],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '')
def test_config_reaches_the_kernel(cfg, kernel) -> None:
    quantizer = build_quantizer(cfg, num_channels=6)
    assert quantizer.kernel == kernel
    assert quantizer.step_size.shape == ((6, ) if cfg.get('axis') == 0 else ())


@every
def test_start_constant_is_ready_at_once(quantizer_class) -> None:
    quantizer = quantizer_class(4, start='constant', start_value=0.5)
    assert quantizer.initialized
    assert quantizer.step_size == quantizer.scale == 0.5
    quantizer(torch.ones(3, 2))


@widths
def test_paper_start_of_lsq(bits: int) -> None:
    """s = 2 mean|x| / sqrt(qmax), averaged over the batches of activations."""
    batches = [torch.rand(4, 70), 3 * torch.rand(2, 500)]
    found = observe(LSQActivationQuantizer(bits), *batches)
    expected = sum(2 * x.mean() / math.sqrt(2**bits - 1) for x in batches) / 2
    torch.testing.assert_close(found, expected)
    w = torch.randn(5, 3, 3, 3)
    found = observe(LSQWeightQuantizer(bits), w)
    torch.testing.assert_close(found, 2 * w.abs().mean() / math.sqrt(2**(bits - 1) - 1))


@widths
@pytest.mark.parametrize('shift', [0.3, -0.5])
def test_paper_start_of_lsq_plus_weights(bits: int, shift: float) -> None:
    w = torch.randn(5, 3, 3, 3) + shift
    found = observe(LSQPlusWeightQuantizer(bits), w)
    ends = [abs(w.mean() + sign * 3 * w.std(correction=0)) for sign in (1, -1)]
    torch.testing.assert_close(found, max(ends) / 2**(bits - 1))


@weights
@pytest.mark.parametrize('start', [None, 'least_error', 'max'], ids=str)
def test_start_per_channel_is_that_of_each_channel(quantizer_class, start) -> None:
    w = torch.randn(3, 2, 4, 4) * torch.tensor([0.1, 1.0, 7.0]).view(3, 1, 1, 1)
    options = {} if start is None else dict(start=start)
    found = observe(quantizer_class(3, 0, 3, **options), w)
    alone = [observe(quantizer_class(3, **options), channel) for channel in w]
    torch.testing.assert_close(found, torch.stack(alone))


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize('quantizer_class', [LSQActivationQuantizer, *WEIGHTS])
def test_start_least_error(quantizer_class, bits: int) -> None:
    x = torch.randn(400)
    if quantizer_class is LSQActivationQuantizer:
        x = x.abs()
    quantizer = quantizer_class(bits, start='least_error')
    found = observe(quantizer, x)

    def error(step_size):
        return (quantizer.kernel.forward(x, step_size) - x).pow(2).sum()

    grid = torch.linspace(0.003, 1, 300) * x.abs().max() / quantizer.qmax
    assert error(found) <= 1.02 * min(error(step_size) for step_size in grid)


def test_start_max_clips_at_eight_tenths() -> None:
    quantizer = LSQActivationQuantizer(3, start='max')
    found = observe(quantizer, torch.tensor([[0.5, 1.0]]), torch.tensor([[3.0, 0.0]]))
    assert found.item() == pytest.approx(0.8 * (1 + 3) / 2 / 7)


def test_lsq_plus_starts_step_size_and_offset_together() -> None:
    points = -0.4 + 0.25 * torch.arange(16.0)
    quantizer = LSQPlusActivationQuantizer(4)
    found = observe(quantizer, points[None], points.flip(0)[None])
    torch.testing.assert_close(found, torch.tensor(0.25))
    torch.testing.assert_close(quantizer.offset.detach(), torch.tensor(-0.4))
    torch.testing.assert_close(quantizer(points), points)


def test_lsq_refuses_negative_inputs_and_lsq_plus_takes_them() -> None:
    x = torch.tensor([[0.5, -0.25]])
    quantizer = LSQActivationQuantizer(4)
    quantizer.name = 'neck.conv.input_quantizer'
    with pytest.raises(ValueError, match=r'neck\.conv\.input_quantizer: .*negative'):
        quantizer.observe(x)
    LSQPlusActivationQuantizer(4).observe(x)


@every
def test_zeros_start_at_an_interval_of_one_and_say_so(quantizer_class, monkeypatch) -> None:
    messages = []
    monkeypatch.setattr(base, 'print_log', lambda message, *_, **__: messages.append(message))
    quantizer = quantizer_class(4)
    found = observe(quantizer, torch.zeros(3, 4))
    assert found.item() == pytest.approx(1 / quantizer.qmax)
    assert len(messages) == 1 and 'only zeros' in messages[0]
    assert not quantizer(torch.zeros(3, 4)).any()


@pytest.mark.parametrize(('low', 'interval'), [(-2.0, 2.0), (-0.5, 1.0), (0.5, 2.0)])
def test_interval_of_lsq_plus_is_the_end_that_is_farther_from_zero(low, interval) -> None:
    quantizer = LSQPlusActivationQuantizer(2, start='constant', start_value=0.5)
    with torch.no_grad():
        quantizer.offset.fill_(low)
    assert quantizer.interval == interval


def test_training_keeps_the_step_size_positive_and_leaves_the_offset_alone() -> None:
    quantizer = LSQPlusActivationQuantizer(4, start='constant')
    with torch.no_grad():
        quantizer.step_size.fill_(-0.3)
        quantizer.offset.fill_(-0.3)
    quantizer(torch.rand(2, 8))
    assert quantizer.step_size.item() == pytest.approx(1e-6)
    assert quantizer.offset.item() == pytest.approx(-0.3)
