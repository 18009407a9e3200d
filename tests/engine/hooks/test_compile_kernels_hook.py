"""Training with compiled kernels: what the log says, and that the numbers stay."""
from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import get_priority

from mmaqd.engine import CompileKernelsHook
from mmaqd.functional import kernels_are_compiled, one_pass
from mmaqd.layers import QuantConv2d
from mmaqd.registry import HOOKS
from tests.functional.test_one_pass import needs_compiler
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import checkpoint, scalars, train

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)


@pytest.fixture
def runner() -> SimpleNamespace:
    return SimpleNamespace(
        model=QuantConv2d(1, 1, 1, weight_quantizer=WEIGHT), logger=logging.getLogger('compile'))


@needs_compiler
def test_on_for_the_time_of_a_training(runner, caplog) -> None:
    hook = CompileKernelsHook()
    with caplog.at_level(logging.INFO, 'compile'):
        hook.before_train(runner)
    assert kernels_are_compiled(runner.model) and 'are compiled for cpu' in caplog.text
    hook.after_train(runner)
    assert not kernels_are_compiled(runner.model)


def test_where_nothing_can_be_compiled_it_says_so(runner, caplog, monkeypatch) -> None:

    def broken(*args):
        raise RuntimeError('no compiler\nat all')

    monkeypatch.setattr(one_pass, '_compiled', broken)
    with caplog.at_level(logging.WARNING, 'compile'):
        CompileKernelsHook().before_train(runner)
    assert not kernels_are_compiled(runner.model)
    message, = (record.getMessage() for record in caplog.records)
    for part in ('CompileKernelsHook', 'cpu', 'goes on without', 'RuntimeError: no compiler'):
        assert part in message
    assert 'at all' not in message


def test_it_begins_after_the_intervals_are_started() -> None:
    order = [
        get_priority(HOOKS.build(dict(type=f'mmaqd.{name}')).priority)
        for name in ('InitializeIntervalsHook', 'CompileKernelsHook')
    ]
    assert order == sorted(set(order))


@pytest.mark.slow
@needs_compiler
def test_a_training_gives_the_same_numbers(tmp_path) -> None:
    data = make_coco(tmp_path / 'data', num_images=4)
    train(run_cfg(data, tmp_path / 'float'))
    for name, hooks in (('without', []), ('with', [dict(type='mmaqd.CompileKernelsHook')])):
        cfg = run_cfg(data, tmp_path / name, bits=4)
        cfg.load_from = str(tmp_path / 'float/epoch_1.pth')
        cfg.custom_hooks = cfg.custom_hooks + hooks
        assert not kernels_are_compiled(train(cfg).model)
    without, compiled = (scalars(tmp_path / name) for name in ('without', 'with'))
    losses = [[record['loss'] for record in records if 'loss' in record]
              for records in (without, compiled)]
    assert losses[0] and losses[1] == pytest.approx(losses[0], rel=1e-5)
    states = [checkpoint(tmp_path / name, 1)['state_dict'] for name in ('without', 'with')]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5)
