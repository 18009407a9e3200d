"""What is logged of the intervals, and when."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmaqd.engine import LogIntervalsHook
from mmaqd.layers import QuantConv2d


class Recorder:
    """Stands for the visualizer."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict]] = []

    def add_scalars(self, scalars: dict, step: int) -> None:
        self.records.append((step, scalars))


def make_model() -> nn.Module:
    constant = dict(start='constant', bit_width=4)
    return nn.Sequential(
        QuantConv2d(
            1,
            2,
            1,
            weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', axis=0, **constant),
            input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', start_value=2.5, **constant)),
        nn.ReLU())


def run(hook: LogIntervalsHook, model: nn.Module, iterations: int) -> list[tuple[int, dict]]:
    runner = SimpleNamespace(model=model, visualizer=Recorder())
    for runner.iter in range(iterations):
        hook.after_train_iter(runner, batch_idx=runner.iter, data_batch=None, outputs=None)
    return runner.visualizer.records


def test_every_interval_is_a_scalar_under_its_name():
    model = make_model()
    with torch.no_grad():
        model[0].weight_quantizer.interval.copy_(torch.tensor([1., 2.]))
    (step, scalars), = run(LogIntervalsHook(interval=1), model, 1)
    assert step == 1
    assert scalars == {
        'interval/0.weight_quantizer': 1.5,  # the mean over the channels
        'interval/0.input_quantizer': 2.5,
    }


@pytest.mark.parametrize('interval, steps', [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (5, [5]), (6, [])])
def test_steps_are_multiples_of_the_interval(interval, steps):
    records = run(LogIntervalsHook(interval), make_model(), 5)
    assert [step for step, _ in records] == steps


def test_names_do_not_depend_on_a_model_wrapper():
    model = make_model()
    assert run(LogIntervalsHook(1), nn.DataParallel(model), 1) == run(LogIntervalsHook(1), model, 1)
