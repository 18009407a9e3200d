"""The LIQ quantizers: arguments, codes, starts."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, fake_quantize
from mmaqd.quantizers import (CheckpointMismatchError, LIQActivationQuantizer, LIQWeightQuantizer,
                              base)

WEIGHT = torch.linspace(-1, 2, 12)

QUANTIZERS = {
    **{
        f'activation{bits}': lambda b=bits: LIQActivationQuantizer(b, start='constant')
        for bits in range(2, 9)
    },
    **{
        f'weight{bits}': lambda b=bits: LIQWeightQuantizer(b, start='constant')
        for bits in range(1, 9)
    },
    'per_channel4': lambda: LIQWeightQuantizer(4, axis=0, num_channels=6, start='constant'),
}
both = pytest.mark.parametrize('quantizer_class', [LIQActivationQuantizer, LIQWeightQuantizer])
every = pytest.mark.parametrize('make', QUANTIZERS.values(), ids=QUANTIZERS.keys())


def observe(quantizer, *tensors):
    """Let the quantizer see tensors and start its interval from them."""
    for x in tensors:
        quantizer.observe(x)
    quantizer.initialize()
    return quantizer.interval.detach()


@both
@pytest.mark.parametrize('bits', [0, 9, '4', True, 4.0], ids=repr)
def test_bad_bit_width(quantizer_class, bits) -> None:
    minimum = 2 if quantizer_class is LIQActivationQuantizer else 1
    with pytest.raises(
            ValueError,
            match=f'{quantizer_class.__name__}: bit_width must be an integer '
            f'from {minimum} to 8, but got {bits!r}'):
        quantizer_class(bits)


def test_one_bit_is_for_weights_only() -> None:
    assert LIQWeightQuantizer(1).qmax == 1
    with pytest.raises(ValueError, match='LIQActivationQuantizer: .* from 2 to 8'):
        LIQActivationQuantizer(1)


@both
def test_bad_start(quantizer_class) -> None:
    with pytest.raises(ValueError, match=f"{quantizer_class.__name__}: start .*'maximum'"):
        quantizer_class(4, start='maximum')


@both
@pytest.mark.parametrize('value', [0.0, -1.0, float('nan')])
def test_bad_start_value(quantizer_class, value: float) -> None:
    with pytest.raises(
            ValueError, match=f'{quantizer_class.__name__}: start_value must be positive'):
        quantizer_class(4, start='constant', start_value=value)


def test_bad_axis() -> None:
    with pytest.raises(ValueError, match='LIQWeightQuantizer: axis must be None .* but got 1'):
        LIQWeightQuantizer(4, axis=1, num_channels=3)
    with pytest.raises(ValueError, match='LIQWeightQuantizer: axis=0 needs num_channels'):
        LIQWeightQuantizer(4, axis=0)


def test_num_channels_without_axis_is_one_interval() -> None:
    assert LIQWeightQuantizer(4, num_channels=6).interval.shape == ()


@every
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_codes_times_scale_is_the_output(make, dtype: torch.dtype) -> None:
    quantizer = make()
    x = (0.7 * torch.randn(6, 4, 3, 3)).to(dtype)
    codes = quantizer.quantize(x)
    signed = isinstance(quantizer, LIQWeightQuantizer)
    assert codes.dtype == (torch.int8 if signed else torch.uint8)
    assert int(codes.max()) <= quantizer.qmax
    scale = quantizer.scale
    assert not scale.requires_grad
    if scale.dim():
        scale = scale.view(-1, 1, 1, 1)
    assert torch.equal((codes * scale).to(dtype), quantizer(x))


@every
def test_forward_is_the_kernel(make) -> None:
    quantizer = make()
    x = torch.randn(6, 4, requires_grad=True)
    expected = fake_quantize(x, quantizer.kernel, quantizer.interval)
    assert torch.equal(quantizer(x), expected)


@pytest.mark.parametrize(('quantizer', 'kernel'), [
    (LIQActivationQuantizer(3, gradient_factor=True), LIQActivationKernel(3, True)),
    (LIQWeightQuantizer(3), LIQWeightKernel(3, normalize=True)),
    (LIQWeightQuantizer(3, center=False), LIQWeightKernel(3, normalize=True, center=False)),
    (LIQWeightQuantizer(3, False, 0, 5), LIQWeightKernel(3, False, 0, gradient_factor=True)),
    (LIQWeightQuantizer(3, False, gradient_factor=False), LIQWeightKernel(3, False)),
    (LIQWeightQuantizer(
        3, gradient_factor=True), LIQWeightKernel(3, normalize=True, gradient_factor=True)),
],
                         ids=['activation', 'weight', 'scaled', 'per_channel', 'off', 'on'])
def test_arguments_reach_the_kernel(quantizer, kernel) -> None:
    assert quantizer.kernel == kernel


@pytest.mark.parametrize('center', [True, False], ids=['centered', 'scaled'])
def test_bn_makes_up_for_the_scale_but_not_for_the_mean(center: bool) -> None:
    x = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    w = 0.3 + torch.randn(5, 3, 3, 3, dtype=torch.float64)
    normalized = LIQWeightQuantizer(4, center=center).kernel.normalized(w)
    found, expected = (
        F.batch_norm(F.conv2d(x, weight), None, None, training=True, eps=1e-12)
        for weight in (normalized, w))
    assert torch.allclose(found, expected, rtol=0, atol=1e-9) is not center


@pytest.mark.parametrize(('options', 'shown'), [
    (dict(normalize=False), 'w'),
    (dict(center=False), 'w/std'),
    (dict(normalize=False, center=False), 'w'),
    (dict(), '(w - mean)/std'),
])
def test_a_checkpoint_of_another_normalization_is_refused(options: dict, shown: str) -> None:
    saved = LIQWeightQuantizer(4, start='constant', **options).state_dict()
    for others in (dict(normalize=False), dict(center=False), dict()):
        other = LIQWeightQuantizer(4, start='constant', **others)
        if other.kernel.normalized(WEIGHT).equal(
                LIQWeightQuantizer(4, **options).kernel.normalized(WEIGHT)):
            other.load_state_dict(saved)
            continue
        with pytest.raises(CheckpointMismatchError) as error:
            other.load_state_dict(saved)
        assert f'trained with {shown} quantized' in str(error.value)
        assert 'normalize and center' in str(error.value)


@both
def test_start_constant_is_ready_at_once(quantizer_class) -> None:
    quantizer = quantizer_class(4, start='constant', start_value=2.5)
    assert quantizer.initialized
    assert quantizer.interval == 2.5
    quantizer(torch.ones(3))


def test_start_max_is_eight_tenths_of_the_mean_maximum() -> None:
    quantizer = LIQActivationQuantizer(8, start='max')
    found = observe(quantizer, torch.tensor([0.5, 1.0]), torch.tensor([[3.0], [0.0]]))
    assert found.item() == pytest.approx(0.8 * (1 + 3) / 2)
    assert quantizer.initialized


def test_start_max_of_weights_is_taken_of_what_is_quantized() -> None:
    w = torch.randn(4, 9) + 1
    found = observe(LIQWeightQuantizer(8, start='max'), w)
    normalized = (w - w.mean()) / w.std(correction=0)
    torch.testing.assert_close(found, 0.8 * normalized.abs().max())


def test_start_max_per_channel() -> None:
    w = torch.tensor([[1.0, -2.0], [0.5, 0.1], [0.0, 0.0]])
    found = observe(LIQWeightQuantizer(8, False, 0, 3, start='max'), w)
    torch.testing.assert_close(found, torch.tensor([1.6, 0.4, 1.0]))


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_start_least_error_of_activations(bits: int) -> None:
    batches = [torch.randn(400).abs(), 2 * torch.rand(400)]
    quantizer = LIQActivationQuantizer(bits)
    found = observe(quantizer, *batches)
    x = torch.cat(batches)

    def error(interval):
        return (quantizer.kernel.forward(x, interval) - x).pow(2).sum()

    assert error(found) <= 1.02 * min(error(v) for v in torch.linspace(0.01, 1, 300) * x.max())


@pytest.mark.parametrize('normalize', [True, False], ids=['normalized', 'plain'])
def test_start_least_error_per_channel(normalize: bool) -> None:
    w = torch.randn(3, 64) * torch.tensor([[0.2], [1.0], [5.0]])
    quantizer = LIQWeightQuantizer(3, normalize, 0, 3)
    found = observe(quantizer, w)
    rows = (w - w.mean()) / w.std(correction=0) if normalize else w
    for row, interval in zip(rows, found):
        alone = LIQWeightQuantizer(3, normalize=False)
        torch.testing.assert_close(observe(alone, row), interval)


@pytest.mark.parametrize('start', ['least_error', 'max'])
def test_normalized_weights_start_as_if_normalized_before(start: str) -> None:
    """The samples of a large weight are normalized with the statistics of the whole weight."""
    w = torch.randn(3 * 2**13)
    w[::3] *= 5
    normalized = (w - w.mean()) / w.std(correction=0)
    found = observe(LIQWeightQuantizer(3, start=start), w)
    expected = observe(LIQWeightQuantizer(3, normalize=False, start=start), normalized)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('start', ['least_error', 'max'])
def test_weights_count_once_however_often_they_are_seen(start: str) -> None:
    w = torch.randn(4, 9)
    once = LIQWeightQuantizer(4, start=start)
    often = LIQWeightQuantizer(4, start=start)
    assert torch.equal(observe(once, w), observe(often, torch.randn(4, 9), w, w))


@pytest.mark.parametrize('start', ['least_error', 'max'])
@both
def test_zeros_stay_zero_and_say_so(quantizer_class, start: str, monkeypatch) -> None:
    messages = []
    monkeypatch.setattr(base, 'print_log', lambda message, *_, **__: messages.append(message))
    quantizer = quantizer_class(4, start=start)
    quantizer.name = 'neck.conv'
    # The weights have no code for zero, so they start at the least interval.
    start_value = 1 if quantizer_class is LIQActivationQuantizer else 1e-6
    assert observe(quantizer, torch.zeros(3, 4)).item() == pytest.approx(start_value)
    assert quantizer(torch.zeros(3, 4)).abs().max() < 1e-6
    assert len(messages) == 1 and messages[0].startswith('neck.conv: only zeros')
    assert not quantizer(torch.zeros(3, 4)).isnan().any()


@pytest.mark.parametrize('start', ['least_error', 'max'])
def test_an_empty_batch_is_no_sample(start: str) -> None:
    x = torch.rand(5, 3)
    without, with_empty = LIQActivationQuantizer(4, start), LIQActivationQuantizer(4, start)
    found = observe(with_empty, torch.empty(0, 3), x, torch.empty(0, 3))
    assert torch.equal(found, observe(without, x))


def test_half_precision_starts_like_float32() -> None:
    x = (300 * torch.rand(2000)).half()
    found = observe(LIQActivationQuantizer(4), x)
    assert torch.equal(found, observe(LIQActivationQuantizer(4), x.float()))


def test_samples_are_spread_over_the_columns() -> None:
    """Maps whose size is a power of two: a stride of that size would see one column only."""
    x = 3 * torch.rand(1, 64, 128, 128)
    x[..., 0] = 0
    found = observe(LIQActivationQuantizer(8), x)
    assert found.item() == pytest.approx(3, abs=0.1)


def test_samples_do_not_grow_with_the_tensor() -> None:
    quantizer = LIQActivationQuantizer(4)
    quantizer.observe(torch.rand(4, 64, 64, 64))
    held = sum(sample.untyped_storage().nbytes() for sample in quantizer._samples)
    assert held < 2**17


@pytest.mark.parametrize('x', [torch.tensor([0.5, -0.25]), torch.tensor([[-3.0]])], ids=str)
def test_negative_input_names_the_quantizer_and_a_remedy(x) -> None:
    quantizer = LIQActivationQuantizer(4)
    quantizer.name = 'neck.fpn_convs.0.conv.input_quantizer'
    with pytest.raises(
            ValueError, match=r'neck\.fpn_convs\.0\.conv\.input_quantizer: .*negative') as e:
        quantizer.observe(x)
    assert f'{x.min().item():.4g}' in str(e.value)
    assert 'ReLU' in str(e.value) and 'input_quantizer=None' in str(e.value)


@pytest.mark.parametrize('bits, interval', [(4, 1e-6), (8, 1.0)])
@pytest.mark.parametrize('start', ['least_error', 'max'])
def test_a_channel_of_zeros_starts_at_its_own_interval(bits, interval, start) -> None:
    w = torch.tensor([[0.5, -1.0], [0.0, 0.0]])
    found = observe(LIQWeightQuantizer(bits, False, 0, 2, start=start), w)
    assert found[0] > 0.5 and found[1].item() == pytest.approx(interval)


def test_pruned_weights_whose_samples_are_zero_start_from_the_others() -> None:
    w = torch.zeros(64, 64, 3, 3)
    w.view(-1)[1] = 0.7  # not among every fifth weight
    found = observe(LIQWeightQuantizer(4, False), w)
    assert found > 1e-3


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@both
def test_nan_and_infinity_are_refused_by_name(quantizer_class, value) -> None:
    quantizer = quantizer_class(4)
    quantizer.name = 'neck.conv.quantizer'
    with pytest.raises(ValueError, match=r'neck\.conv\.quantizer: .* NaN or infinity'):
        quantizer.observe(torch.tensor([[1.0, value], [0.5, 2.0]]))
    assert not quantizer.initialized and not quantizer.has_samples


def test_repr_tells_bits_granularity_and_start() -> None:
    assert repr(LIQActivationQuantizer(3)) == (
        "LIQActivationQuantizer(bit_width=3, per_tensor, start='least_error')")
    assert 'per_channel' in repr(LIQWeightQuantizer(3, axis=0, num_channels=2))
