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
from mmaqd.quantizers import (CheckpointMismatchError, DoReFaActivationQuantizer,
                              DoReFaWeightQuantizer, LIQActivationQuantizer, LIQWeightQuantizer,
                              LSQActivationQuantizer, LSQPlusActivationQuantizer,
                              LSQPlusWeightQuantizer, LSQWeightQuantizer, PACTActivationQuantizer,
                              Quantizer, UninitializedIntervalError, WeightQuantizer, calibrate)
from mmaqd.quantizers.observers import Observer

MAKERS = {
    'activation': lambda bits=4: LIQActivationQuantizer(bits),
    'weight': lambda bits=4: LIQWeightQuantizer(bits),
    'per_channel': lambda bits=4: LIQWeightQuantizer(bits, axis=0, num_channels=3),
    'lsq_activation': lambda bits=4: LSQActivationQuantizer(bits),
    'lsq_weight': lambda bits=4: LSQWeightQuantizer(bits),
    'lsq_per_channel': lambda bits=4: LSQWeightQuantizer(bits, axis=0, num_channels=3),
    'lsq_plus_activation': lambda bits=4: LSQPlusActivationQuantizer(bits),
    'lsq_plus_weight': lambda bits=4: LSQPlusWeightQuantizer(bits),
    'pact_activation': lambda bits=4: PACTActivationQuantizer(bits, start='max'),
}
FIXED_MAKERS = {
    'dorefa_activation': lambda bits=4: DoReFaActivationQuantizer(bits),
    'dorefa_weight': lambda bits=4: DoReFaWeightQuantizer(bits),
}
ALL_MAKERS = {**MAKERS, **FIXED_MAKERS}
LEARNED = {
    LIQActivationQuantizer: ['interval'],
    LIQWeightQuantizer: ['interval'],
    LSQActivationQuantizer: ['step_size'],
    LSQWeightQuantizer: ['step_size'],
    LSQPlusActivationQuantizer: ['step_size', 'offset'],
    LSQPlusWeightQuantizer: ['step_size'],
    PACTActivationQuantizer: ['alpha'],
    DoReFaActivationQuantizer: [],
    DoReFaWeightQuantizer: [],
}
each = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS.keys())
each_and_fixed = pytest.mark.parametrize('make', ALL_MAKERS.values(), ids=ALL_MAKERS.keys())
loaders = pytest.mark.parametrize(
    'load', [
        lambda model, state: model.load_state_dict(state),
        lambda model, state: mmengine_load_state_dict(model, state, strict=True),
    ],
    ids=['torch', 'mmengine'])

lenient_loaders = pytest.mark.parametrize(
    'load', [
        lambda model, state: model.load_state_dict(state, strict=False),
        lambda model, state: mmengine_load_state_dict(model, state, strict=False),
    ],
    ids=['torch', 'mmengine'])


def make_conv(bits: int = 4, axis: int | None = None) -> QuantConv2d:
    return QuantConv2d(
        2,
        3,
        3,
        weight_quantizer=dict(type='LIQWeightQuantizer', bit_width=bits, axis=axis),
        input_quantizer=dict(type='LIQActivationQuantizer', bit_width=bits))


def started(quantizer: Quantizer) -> Quantizer:
    if not quantizer.initialized:
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


@each_and_fixed
def test_attributes(make) -> None:
    quantizer = make(3)
    buffers = dict(quantizer.named_buffers())
    normalization = ['normalization'] if isinstance(quantizer, LIQWeightQuantizer) else []
    assert quantizer.constants == ('bits', *normalization)
    assert buffers.keys() == {'initialized', *quantizer.constants}
    assert buffers['initialized'].dtype == torch.bool
    assert buffers['bits'] == quantizer.bit_width == 3
    learned = LEARNED[type(quantizer)]
    assert [name for name, _ in quantizer.named_parameters()] == learned
    assert quantizer.learned == tuple(learned)
    assert list(quantizer.state_dict()) == [*learned, 'initialized', *quantizer.constants]
    assert quantizer.name == type(quantizer).__name__


@each_and_fixed
def test_interval_is_the_largest_magnitude(make) -> None:
    quantizer = started(make(3))
    x = torch.linspace(-50, 50, 300).repeat(3, 1)
    largest = quantizer(x).abs().amax(dim=1)
    torch.testing.assert_close(largest, quantizer.interval.detach().expand(3))
    for value in (quantizer.interval.detach(), quantizer.scale):
        assert value.shape == ((3, ) if quantizer.granularity == 'per_channel' else ())
        assert (value > 0).all()
    assert not quantizer.scale.requires_grad


@each_and_fixed
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_codes_times_scale_is_the_output(make, dtype: torch.dtype) -> None:
    quantizer = started(make(4))
    x = (0.7 * torch.randn(3, 4, 3, 3)).to(dtype)
    codes = quantizer.quantize(x)
    signed = isinstance(quantizer, WeightQuantizer)
    assert codes.dtype == (torch.int8 if signed else torch.uint8)
    assert int(codes.max()) <= quantizer.qmax
    scale, offset = quantizer.scale, getattr(quantizer, 'offset', torch.zeros(())).detach()
    if scale.dim():
        scale = scale.view(-1, 1, 1, 1)
    assert torch.equal((codes * scale + offset).to(dtype), quantizer(x))


def test_base_leaves_rows_to_its_families() -> None:
    base = Quantizer(LIQActivationQuantizer(4).kernel, 'max', dict(interval=1.0))
    with pytest.raises(NotImplementedError):
        base.observe(torch.ones(3))
    with pytest.raises(NotImplementedError):
        base._rows(torch.ones(1, 3))


@each
def test_initialize_without_data_is_an_error_that_names_it(make) -> None:
    quantizer = make()
    quantizer.name = 'neck.unused.input_quantizer'
    with pytest.raises(UninitializedIntervalError, match=r'neck\.unused\.input_quantizer: no data'):
        quantizer.initialize()


@each_and_fixed
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
@lenient_loaders
def test_checkpoint_of_another_granularity_is_refused(load, saved, loaded) -> None:
    """MMEngine would only log the shapes, and take the interval for an initialized one."""
    conv = make_conv(axis=saved)
    calibrate(conv, [torch.rand(2, 2, 6, 6)], run_conv)
    with pytest.raises(CheckpointMismatchError, match='weight_quantizer: .*shape'):
        load(make_conv(axis=loaded), conv.state_dict())


FOREIGN = [
    ('activation', 'lsq_activation'),
    ('activation', 'pact_activation'),
    ('lsq_activation', 'lsq_plus_activation'),
    ('dorefa_activation', 'pact_activation'),
    ('weight', 'lsq_weight'),
    ('lsq_plus_weight', 'dorefa_weight'),
]


@pytest.mark.parametrize(('saved', 'loaded'), FOREIGN + [pair[::-1] for pair in FOREIGN])
@lenient_loaders
def test_checkpoint_of_another_family_is_refused(load, saved: str, loaded: str) -> None:
    checkpoint = nn.Sequential(OrderedDict(conv=started(ALL_MAKERS[saved]()))).state_dict()
    model = nn.Sequential(OrderedDict(conv=ALL_MAKERS[loaded]()))
    with pytest.raises(CheckpointMismatchError, match='^conv: .*another quantizer') as error:
        load(model, checkpoint)
    assert type(model.conv).__name__ in str(error.value)


@each_and_fixed
@lenient_loaders
def test_state_with_a_part_missing_is_refused(load, make) -> None:
    complete = nn.Sequential(started(make())).state_dict()
    for missing in complete:
        part = {key: value for key, value in complete.items() if key != missing}
        with pytest.raises(CheckpointMismatchError, match='^0: .*another quantizer'):
            load(nn.Sequential(make()), part)


@pytest.mark.parametrize(('make', 'shape', 'normalization'), [
    (lambda: LIQActivationQuantizer(3), (), {}),
    (lambda: LIQWeightQuantizer(3), (), dict(normalization=2)),
    (lambda: LIQWeightQuantizer(3, axis=0, num_channels=2), (2, ), dict(normalization=2)),
    (lambda: LIQWeightQuantizer(3, center=False), (), dict(normalization=1)),
    (lambda: LIQWeightQuantizer(3, normalize=False), (), dict(normalization=0)),
])
def test_state_of_liq_has_the_keys_of_trained_checkpoints(make, shape: tuple,
                                                          normalization: dict) -> None:
    interval = torch.full(shape, 0.7)
    quantizer = make()
    constants = {key: torch.tensor(value) for key, value in dict(bits=3, **normalization).items()}
    quantizer.load_state_dict(dict(interval=interval, initialized=torch.tensor(True), **constants))
    assert torch.equal(quantizer.interval, interval)
    assert torch.equal(quantizer.scale, interval / 7)


@pytest.mark.parametrize('make', FIXED_MAKERS.values(), ids=FIXED_MAKERS.keys())
@lenient_loaders
def test_fixed_ranges_are_ready_at_once_and_after_a_float_checkpoint(load, make) -> None:
    model = nn.Sequential(make())
    expected = model(torch.rand(9))
    load(model, {})
    assert model[0].initialized
    assert model(torch.rand(9)).shape == expected.shape


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
        for parameter in twin.parameters():
            parameter.mul_(3)
    assert not torch.equal(twin(x), quantizer(x))


CONSTANT = dict(start='constant', start_value=0.4)
STEP = dict(start='constant', start_value=0.04)


@pytest.mark.parametrize(('make', 'learning_rate'), [
    (lambda: LIQActivationQuantizer(4, **CONSTANT), 1e-3),
    (lambda: LIQWeightQuantizer(4, **CONSTANT), 1e-3),
    (lambda: LIQWeightQuantizer(4, False, 0, 3, **CONSTANT), 3e-2),
    (lambda: LSQActivationQuantizer(4, **STEP), 2e-4),
    (lambda: LSQWeightQuantizer(4, **STEP), 5e-4),
    (lambda: LSQWeightQuantizer(4, 0, 3, **STEP), 5e-4),
    (lambda: LSQPlusActivationQuantizer(4, **STEP), 2e-4),
    (lambda: PACTActivationQuantizer(4, **CONSTANT), 1e-3),
],
                         ids=[
                             'activation', 'weight', 'per_channel', 'lsq_activation', 'lsq_weight',
                             'lsq_per_channel', 'lsq_plus_activation', 'pact'
                         ])
def test_parameters_learn(make, learning_rate: float) -> None:
    quantizer = make()
    x = 3 * torch.rand(3, 100)
    target = quantizer.kernel.normalized(x)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=learning_rate)
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
    x = torch.rand(5, requires_grad=True)
    assert Observer(quantizer)(x) is x
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
