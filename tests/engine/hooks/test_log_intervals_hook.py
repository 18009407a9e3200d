"""What is logged of the intervals, and when."""
from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.visualization import BaseVisBackend, Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from mmaqd.engine import LogIntervalsHook
from mmaqd.layers import QuantConv2d
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import scalars, train


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


def whole_run(hook: LogIntervalsHook, first: int, last: int) -> list[int]:
    """Steps of the records of a training from an iteration on."""
    runner = SimpleNamespace(model=make_model(), visualizer=Recorder(), iter=first)
    hook.before_train(runner)
    for runner.iter in range(first, last):
        hook.after_train_iter(runner, batch_idx=runner.iter, data_batch=None, outputs=None)
    runner.iter = last
    hook.after_train(runner)
    return [step for step, _ in runner.visualizer.records]


@pytest.mark.parametrize('interval, first, last, steps', [
    (50, 0, 84, [0, 50, 84]),
    (42, 0, 84, [0, 42, 84]),
    (500, 0, 84, [0, 84]),
    (50, 84, 110, [84, 100, 110]),
])
def test_a_run_is_recorded_at_its_start_and_its_end(interval, first, last, steps):
    assert whole_run(LogIntervalsHook(interval), first, last) == steps


def test_a_quantizer_that_has_no_interval_yet_is_left_out():
    model, hook = make_model(), LogIntervalsHook(1)
    runner = SimpleNamespace(model=model, visualizer=Recorder(), iter=0)
    model[0].weight_quantizer.initialized.fill_(False)
    hook.before_train(runner)
    model[0].input_quantizer.initialized.fill_(False)
    hook.before_train(runner)
    (_, scalars), = runner.visualizer.records
    assert list(scalars) == ['interval/0.input_quantizer']


class TestJumps:

    @pytest.fixture
    def record(self, caplog):
        """Sets the interval of the inputs, lets the hook look, and gives what it warned of."""
        model, hook = make_model(), LogIntervalsHook(1)
        runner = SimpleNamespace(
            model=model, visualizer=Recorder(), iter=0, logger=logging.getLogger('jumps'))

        def look(value: float, weights: float = 1.0) -> list[str]:
            with torch.no_grad():
                model[0].input_quantizer.interval.fill_(value)
                model[0].weight_quantizer.interval.fill_(weights)
            caplog.clear()
            hook.after_train_iter(runner, 0)
            return [record.getMessage() for record in caplog.records]

        return look

    @pytest.mark.parametrize('after', [0.19, 21, -2, 0, float('nan')])
    def test_a_jump_is_warned_of_by_name(self, record, after):
        assert record(2) == []
        warning, = record(after)
        assert '0.input_quantizer went from 2 to ' in warning and 'gradient_factor' in warning

    @pytest.mark.parametrize('after', [0.21, 2, 19])
    def test_learning_is_not(self, record, after):
        assert record(2) + record(after) == []

    def test_it_is_compared_with_the_record_before(self, record):
        assert [len(record(value)) for value in (1, 9, 80, 80, 8.1)] == [0, 0, 0, 0, 0]

    @pytest.mark.parametrize('before', [0, -1])
    def test_an_interval_below_zero_is_warned_of_again(self, record, before):
        record(before)
        assert len(record(1)) == 1

    def test_several_are_counted(self, record):
        record(1)
        warning, = record(20, weights=20)
        assert '(and of 1 others likewise)' in warning


def test_names_do_not_depend_on_a_model_wrapper():
    model = make_model()
    assert run(LogIntervalsHook(1), nn.DataParallel(model), 1) == run(LogIntervalsHook(1), model, 1)


def test_the_scalars_reach_tensorboard_and_the_local_backend(tmp_path):
    cfg = run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work', bits=4)
    cfg.custom_hooks.append(dict(type='mmaqd.LogIntervalsHook', interval=1))
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = train(cfg)
    runner.visualizer.close()
    local = [record for record in scalars(tmp_path / 'work') if 'loss' not in record]
    folder, = (tmp_path / 'work').glob('*/vis_data')
    board = EventAccumulator(str(folder)).Reload()
    names = [name for name, _ in runner.model.named_modules() if name.endswith('_quantizer')]
    tags = {tag for tag in board.Tags()['scalars'] if tag.startswith('interval/')}
    assert tags == {f'interval/{name}' for name in names} and len(names) > 60
    for tag in tags:
        events = [(event.step, event.value) for event in board.Scalars(tag)]
        assert events == [(record['step'], pytest.approx(record[tag])) for record in local]
        assert [step for step, _ in events] == [0, 1, 2]
    last = runner.model.get_submodule('bbox_head.retina_cls.input_quantizer').interval.item()
    assert local[-1]['interval/bbox_head.retina_cls.input_quantizer'] == pytest.approx(last)


class OtherBackend(BaseVisBackend):
    """A backend of any other kind: notes what MMEngine gives it."""

    def __init__(self) -> None:
        self.records: list[tuple[dict, int]] = []
        super().__init__('unused')

    def _init_env(self) -> None:
        pass

    @property
    def experiment(self) -> OtherBackend:
        return self

    def add_scalars(self, scalar_dict: dict, step: int, *_: Any) -> None:
        self.records.append((scalar_dict, step))


def test_any_backend_gets_the_scalars():
    backend = OtherBackend()
    visualizer = Visualizer(vis_backends=[backend])
    runner = SimpleNamespace(model=make_model(), visualizer=visualizer, iter=4)
    LogIntervalsHook(interval=5).after_train_iter(runner, 4, None, None)
    expected = {'interval/0.weight_quantizer': 1.0, 'interval/0.input_quantizer': 2.5}
    assert backend.records == [(expected, 5)]
