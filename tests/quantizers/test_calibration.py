"""Starting the intervals of a model from batches."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaqd.layers import MultiLevelBN, QuantConv2d
from mmaqd.quantizers import (CalibrationError, LIQActivationQuantizer, Quantizer,
                              UninitializedIntervalError, calibrate, calibrating)
from mmaqd.quantizers.calibration import check_data, observing
from mmaqd.quantizers.observers import Inspector, Observer

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)


class Net(nn.Module):
    """Two quantized convs with BN, and a conv that is never used."""

    def __init__(self, unused: bool = False) -> None:
        super().__init__()
        self.conv1 = QuantConv2d(2, 4, 3, weight_quantizer=WEIGHT, input_quantizer=INPUT)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = QuantConv2d(4, 4, 3, weight_quantizer=WEIGHT, input_quantizer=INPUT)
        self.bn2 = MultiLevelBN(4, 2)
        self.dropout = nn.Dropout()
        self.unused = QuantConv2d(4, 4, 1, input_quantizer=INPUT) if unused else None
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.bn2.level = 0
        hidden = self.bn1(self.conv1(x)).relu()
        self.seen.append(hidden)
        return self.dropout(self.bn2(self.conv2(hidden)).relu())


class Detector(Net):
    """What calibrate expects of a detector by default."""

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        assert not training
        return dict(inputs=batch['inputs'] / 255, data_samples=None)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'loss') -> Tensor:
        assert mode == 'tensor'
        return super().forward(inputs)


def batches(count: int = 3) -> list[Tensor]:
    return [torch.rand(2, 2, 8, 8) for _ in range(count)]


def run(model: nn.Module, batch: Tensor) -> None:
    model(batch)


def quantizers_of(model: nn.Module) -> list[Quantizer]:
    return [module for module in model.modules() if isinstance(module, Quantizer)]


def stand_ins_of(model: nn.Module) -> list[Observer | Inspector]:
    return [module for module in model.modules() if isinstance(module, (Observer, Inspector))]


def test_every_interval_starts() -> None:
    net = Net()
    assert calibrate(net, batches(), run) == 4
    assert all(q.initialized for q in quantizers_of(net))
    assert stand_ins_of(net) == []
    net(batches(1)[0]).sum().backward()
    assert all(q.interval.grad is not None for q in quantizers_of(net))


def test_default_run_is_that_of_a_detector() -> None:
    net = Detector()
    assert calibrate(net, [dict(inputs=255 * x) for x in batches()]) == 4


def test_intervals_start_from_float_activations_under_batch_statistics() -> None:
    net = Net()
    data = batches()
    calibrate(net, data, run)
    quantizer = LIQActivationQuantizer(4)
    for x in data:
        conv = nn.functional.conv2d(x, net.conv1.weight, net.conv1.bias)
        normalized = nn.functional.batch_norm(conv, None, None, training=True)
        quantizer.observe(normalized.relu())
    quantizer.initialize()
    torch.testing.assert_close(net.conv2.input_quantizer.interval, quantizer.interval)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_modes_and_statistics_stay_as_they_were(training: bool) -> None:
    net = Net().train(training)
    net.bn1.train(not training)
    net.bn1.running_mean.fill_(3)
    modes = [module.training for module in net.modules()]
    kept = {name: buffer.clone() for name, buffer in net.named_buffers() if 'bn' in name}
    calibrate(net, batches(), run)
    assert [module.training for module in net.modules()] == modes
    for name, buffer in net.named_buffers():
        if 'bn' in name:
            assert torch.equal(buffer, kept[name])


def test_batch_norm_without_running_statistics() -> None:
    net = Net()
    net.bn1 = nn.BatchNorm2d(4, track_running_stats=False)
    assert calibrate(net, batches(), run) == 4


def test_weights_do_not_change_and_nothing_is_recorded() -> None:
    net = Net()
    kept = [conv.weight.clone() for conv in (net.conv1, net.conv2)]
    calibrate(net, batches(), run)
    assert all(torch.equal(conv.weight, old) for conv, old in zip((net.conv1, net.conv2), kept))
    assert not any(hidden.requires_grad for hidden in net.seen)


def test_initialized_intervals_are_never_touched() -> None:
    net = Net()
    calibrate(net, batches(), run)
    fresh = Net()
    fresh.load_state_dict(net.state_dict())
    assert calibrate(fresh, iter([]), run) == 0
    assert calibrate(fresh, [10 * x for x in batches()], run) == 0
    for one, other in zip(quantizers_of(net), quantizers_of(fresh)):
        assert torch.equal(one.interval, other.interval)


def test_only_pending_intervals_start() -> None:
    net = Net()
    net.conv1.input_quantizer = LIQActivationQuantizer(4, start='constant', start_value=0.3)
    assert calibrate(net, batches(), run) == 3
    assert net.conv1.input_quantizer.interval.item() == pytest.approx(0.3)


def test_no_batch_is_taken_where_nothing_is_pending() -> None:

    def refuse():
        raise AssertionError('a batch was asked for')
        yield

    assert calibrate(nn.Conv2d(2, 3, 1), refuse(), run) == 0


def test_a_quantizer_that_no_data_reaches_is_an_error() -> None:
    net = Net(unused=True)
    net.unused.input_quantizer.name = 'unused.input_quantizer'
    with pytest.raises(UninitializedIntervalError, match=r'unused\.input_quantizer: no data'):
        calibrate(net, batches(), run)


@pytest.mark.parametrize('data', [[], [torch.empty(0, 2, 8, 8)]], ids=['no_batch', 'empty_batch'])
def test_no_data_at_all_is_an_error(data: list) -> None:
    conv = QuantConv2d(2, 3, 3, input_quantizer=INPUT)
    with pytest.raises(UninitializedIntervalError, match='no data'):
        calibrate(conv, data, run)


def test_negative_input_stops_and_leaves_the_model_usable() -> None:
    net = Net()
    net.conv1.input_quantizer.name = 'conv1.input_quantizer'
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    wrong = batches(1) + [50 * batches(1)[0], -batches(1)[0]]
    with pytest.raises(ValueError, match=r'conv1\.input_quantizer: .*negative'):
        calibrate(net, wrong, run)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    assert stand_ins_of(net) == []
    assert net.training


def test_samples_of_a_failed_calibration_do_not_count() -> None:
    good = batches()
    once, again = Net(), Net()
    again.load_state_dict(once.state_dict())
    with pytest.raises(ValueError, match='negative'):
        calibrate(again, [50 * good[0], -good[0]], run)
    calibrate(once, good, run)
    calibrate(again, good, run)
    for one, other in zip(quantizers_of(once), quantizers_of(again)):
        assert torch.equal(one.interval, other.interval)


def test_calibrating_yields_what_observes() -> None:
    net = Net()
    with calibrating(net) as pending:
        assert pending == quantizers_of(net)
        assert [each.quantizer for each in stand_ins_of(net)] == pending
        net(batches(1)[0])
    assert all(quantizer.initialized for quantizer in pending)
    with calibrating(net) as pending:
        assert pending == []


class TestLookingAlone:

    def test_observing_tells_what_it_saw_and_complains_of_nothing(self):
        model = Net(unused=True)
        with observing(model) as called:
            outputs = model.eval()(batches()[0] - 0.5)
        assert model.conv1.input_quantizer.lowest < 0 == model.conv2.input_quantizer.lowest
        assert {model.conv1, model.conv2} == called
        assert not any(bool(each.initialized) for each in quantizers_of(model))
        assert stand_ins_of(model) == []
        hidden = nn.functional.conv2d(batches()[0], model.conv1.weight)
        assert outputs.shape[0] == hidden.shape[0]

    def test_checking_raises_what_calibrating_does(self):
        for look in (check_data, calibrate):
            with pytest.raises(CalibrationError, match='must not be negative') as error:
                look(Net(), [batches()[0] - 0.5], run)
            assert "pattern='conv1'" in str(error.value) and 'conv2' not in str(error.value)

    def test_checking_starts_nothing(self):
        model = Net()
        check_data(model, batches(), run)
        assert not any(bool(each.initialized) for each in quantizers_of(model))
        assert calibrate(model, batches(), run) == 4
