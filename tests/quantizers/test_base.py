"""The state of a quantizer: initialized or not, in checkpoints, copied, compiled."""
from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from torch import nn

from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import (CheckpointMismatchError, IntervalQuantizer, LIQActivationQuantizer,
                              LIQWeightQuantizer, UninitializedIntervalError, calibrate)

MAKERS = {
    'activation': lambda bits=4: LIQActivationQuantizer(bits),
    'weight': lambda bits=4: LIQWeightQuantizer(bits),
    'per_channel': lambda bits=4: LIQWeightQuantizer(bits, axis=0, num_channels=3),
}
each = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS.keys())
loaders = pytest.mark.parametrize(
    'load', [
        lambda model, state: model.load_state_dict(state),
        lambda model, state: mmengine_load_state_dict(model, state, strict=True),
    ],
    ids=['torch', 'mmengine'])


def make_conv(bits: int = 4, axis: int | None = None) -> QuantConv2d:
    return QuantConv2d(
        2,
        3,
        3,
        weight_quantizer=dict(type='LIQWeightQuantizer', bit_width=bits, axis=axis),
        input_quantizer=dict(type='LIQActivationQuantizer', bit_width=bits))


def started(quantizer: IntervalQuantizer) -> IntervalQuantizer:
    quantizer.observe(torch.rand(3, 20))
    quantizer.initialize()
    return quantizer


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run_conv(model: nn.Module, batch: torch.Tensor) -> None:
    model(batch)


@each
def test_uninitialized_is_an_error_that_says_what_to_do(make) -> None:
    quantizer = make()
    quantizer.name = 'backbone.layer1.0.conv1.weight_quantizer'
    assert not quantizer.initialized
    for use in (quantizer, quantizer.quantize):
        with pytest.raises(UninitializedIntervalError) as error:
            use(torch.rand(3, 4))
        for part in (quantizer.name, 'InitializeIntervalsHook', 'calibrate', 'checkpoint'):
            assert part in str(error.value)


@each
def test_attributes(make) -> None:
    quantizer = make(3)
    buffers = dict(quantizer.named_buffers())
    assert buffers.keys() == {'initialized', 'bits'}
    assert buffers['initialized'].dtype == torch.bool
    assert buffers['bits'] == quantizer.bit_width == 3
    assert [name for name, _ in quantizer.named_parameters()] == ['interval']
    assert quantizer.name == type(quantizer).__name__


def test_base_leaves_rows_to_its_families() -> None:
    base = IntervalQuantizer(LIQActivationQuantizer(4).kernel, None, 'max', 1.0)
    with pytest.raises(NotImplementedError):
        base.observe(torch.ones(3))
    with pytest.raises(NotImplementedError):
        base._fake_quantize_rows(torch.ones(1, 3), torch.ones(1))


@each
def test_initialize_without_data_is_an_error_that_names_it(make) -> None:
    quantizer = make()
    quantizer.name = 'neck.unused.input_quantizer'
    with pytest.raises(UninitializedIntervalError, match=r'neck\.unused\.input_quantizer: no data'):
        quantizer.initialize()


@each
@loaders
def test_state_goes_through_a_file_to_the_bit(make, load) -> None:
    quantizer, fresh = started(make()), make()
    state = through_a_file(quantizer.state_dict())
    load(fresh, state)
    x = torch.randn(3, 50)
    assert torch.equal(fresh(x), quantizer(x))
    assert torch.equal(fresh.interval, quantizer.interval)
    assert fresh.initialized


@loaders
def test_conv_state_goes_through_a_file_to_the_bit(load) -> None:
    conv, fresh = make_conv(), make_conv()
    x = torch.rand(2, 2, 6, 6)
    calibrate(conv, [x], run_conv)
    load(fresh, through_a_file(conv.state_dict()))
    assert torch.equal(fresh(x), conv(x))


@loaders
@pytest.mark.parametrize('axis', [None, 0], ids=['per_tensor', 'per_channel'])
def test_float_checkpoint_loads_and_leaves_intervals_uninitialized(load, axis) -> None:
    conv = nn.Conv2d(2, 3, 3)
    quant_conv = make_conv(axis=axis)
    load(quant_conv, through_a_file(conv.state_dict()))
    assert torch.equal(quant_conv.weight, conv.weight)
    assert torch.equal(quant_conv.bias, conv.bias)
    assert not quant_conv.weight_quantizer.initialized
    with pytest.raises(UninitializedIntervalError):
        quant_conv(torch.rand(1, 2, 6, 6))


@loaders
def test_float_checkpoint_does_not_reset_intervals(load) -> None:
    conv = make_conv()
    calibrate(conv, [torch.rand(2, 2, 6, 6)], run_conv)
    interval = conv.input_quantizer.interval.clone()
    load(conv, nn.Conv2d(2, 3, 3).state_dict())
    assert torch.equal(conv.input_quantizer.interval, interval)
    assert conv.input_quantizer.initialized


@pytest.mark.parametrize('strict', [True, False], ids=['strict', 'lenient'])
@loaders
def test_checkpoint_of_other_bits_is_refused(load, strict) -> None:
    model = OrderedDict(block=nn.Sequential(make_conv(bits=4)))
    model = nn.Sequential(model)
    checkpoint = nn.Sequential(OrderedDict(block=nn.Sequential(make_conv(bits=2)))).state_dict()
    with pytest.raises(CheckpointMismatchError) as error:
        load(model, checkpoint)
    for part in ('block.0.', '_quantizer', '2 bits', '4 bits'):
        assert part in str(error.value)


def test_other_bits_are_refused_without_a_prefix_too() -> None:
    with pytest.raises(CheckpointMismatchError, match='LIQActivationQuantizer: .* 3 bits'):
        LIQActivationQuantizer(4).load_state_dict(LIQActivationQuantizer(3).state_dict())


@pytest.mark.parametrize(('saved', 'loaded'), [(None, 0), (0, None)],
                         ids=['per_tensor_to_per_channel', 'per_channel_to_per_tensor'])
@pytest.mark.parametrize(
    'load', [
        lambda model, state: model.load_state_dict(state, strict=False),
        lambda model, state: mmengine_load_state_dict(model, state, strict=False),
    ],
    ids=['torch', 'mmengine'])
def test_checkpoint_of_another_granularity_is_refused(load, saved, loaded) -> None:
    """MMEngine would only log the shapes, and take the interval for an initialized one."""
    conv = make_conv(axis=saved)
    calibrate(conv, [torch.rand(2, 2, 6, 6)], run_conv)
    with pytest.raises(CheckpointMismatchError, match='weight_quantizer: .*shape'):
        load(make_conv(axis=loaded), conv.state_dict())


def test_loading_an_uninitialized_state_is_noticed() -> None:
    quantizer = started(LIQActivationQuantizer(4))
    quantizer(torch.ones(1))
    quantizer.load_state_dict(LIQActivationQuantizer(4).state_dict())
    with pytest.raises(UninitializedIntervalError):
        quantizer(torch.ones(1))


@each
@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))],
    ids=['deepcopy', 'pickle'])
def test_copies_are_equal_and_independent(make, duplicate) -> None:
    quantizer = started(make())
    twin = duplicate(quantizer)
    x = torch.randn(3, 30)
    assert torch.equal(twin(x), quantizer(x))
    with torch.no_grad():
        twin.interval.mul_(3)
    assert not torch.equal(twin(x), quantizer(x))


@pytest.mark.parametrize(
    'make', [
        lambda: LIQActivationQuantizer(4, start='constant', start_value=0.4),
        lambda: LIQWeightQuantizer(4, start='constant', start_value=0.4),
        lambda: LIQWeightQuantizer(4, False, 0, 3, start='constant', start_value=0.4),
    ],
    ids=MAKERS.keys())
def test_interval_learns(make) -> None:
    quantizer = make()
    x = 3 * torch.rand(3, 100)
    weight = isinstance(quantizer, LIQWeightQuantizer)
    target = quantizer.kernel.normalized(x) if weight else x
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (quantizer(x) - target).pow(2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_gradients_reach_interval_and_input_only_after_calibration() -> None:
    quantizer = LIQActivationQuantizer(4)
    quantizer.calibrating = True
    x = torch.rand(5, requires_grad=True)
    assert quantizer(x) is x
    quantizer.calibrating = False
    quantizer.initialize()
    quantizer(x).sum().backward()
    assert x.grad.any()
    assert quantizer.interval.grad is not None


def test_compiles_without_a_graph_break() -> None:
    quantizer = started(LIQActivationQuantizer(4))
    quantizer(torch.ones(1))  # the first call looks at the buffer

    def loss(x):
        return quantizer(x).pow(2).sum()

    x = torch.rand(8, requires_grad=True)
    leaves = (x, quantizer.interval)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    found = torch.autograd.grad(compiled(x), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(loss(x), leaves))


@pytest.mark.parametrize('stepped_to', [-0.45, 0.0, 1e-9])
def test_training_brings_the_interval_back_above_zero(stepped_to):
    quantizer = LIQActivationQuantizer(4, start='constant')
    with torch.no_grad():
        quantizer.interval.fill_(stepped_to)
    x = torch.rand(8) + 0.1
    first, second = quantizer(x), quantizer(x)  # as a shared conv does for two levels
    (first + second).sum().backward()
    assert quantizer.interval.item() == pytest.approx(1e-6)
    assert quantizer.interval.grad.item() == 2 * x.numel()


def test_evaluation_does_not_write_to_the_interval():
    quantizer = LIQActivationQuantizer(4, start='constant').eval()
    with torch.no_grad():
        quantizer.interval.fill_(-1)
        quantizer(torch.rand(8))
    assert quantizer.interval.item() == -1
