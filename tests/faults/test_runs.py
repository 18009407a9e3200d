"""Faults of real runs: each is survived, or ends in words that name what is wrong."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaqd.cli import command_line
from mmaqd.engine import InvalidLossError, launch
from mmaqd.registry import HOOKS
from tests.helpers.data import make_coco, run_cfg


@HOOKS.register_module()
class SpoilHook(Hook):
    """Before an iteration (1, 2, ...), makes a weight NaN, or the image, or presses Ctrl-C."""

    priority = 'LOWEST'

    def __init__(self, iteration: int, what: str) -> None:
        self.iteration = iteration
        self.what = what

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        if runner.iter + 1 != self.iteration:
            return
        if self.what == 'interrupt':
            raise KeyboardInterrupt
        if self.what == 'bn':  # a variance that the loss of no image survives
            runner.model.neck.lateral_convs[1].conv.register_forward_hook(
                lambda module, inputs, output: output * float('inf') * 0)
        if self.what == 'image':
            data_batch['inputs'] = [each.float() * float('nan') for each in data_batch['inputs']]


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('runs') / 'data', num_images=4)


def write(cfg: Config, tmp_path: Path) -> str:
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key, None)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.dump(tmp_path / 'config.py')
    return str(tmp_path / 'config.py')


def spoiled(data: Path, tmp_path: Path, what: str, bits: int | None = None) -> str:
    cfg = run_cfg(data, tmp_path / 'work', bits=bits)
    cfg.custom_hooks = [dict(type='mmaqd.SpoilHook', iteration=2, what=what)]
    return write(cfg, tmp_path)


@pytest.mark.parametrize('what, module', [('bn', r'neck\.lateral_convs\.1\.conv'),
                                          ('image', r'backbone\.conv1')])
def test_a_loss_that_is_no_number_stops_before_the_step(data, tmp_path, what, module):
    with pytest.raises(InvalidLossError) as caught:
        launch.train(spoiled(data, tmp_path, what))
    message = str(caught.value)
    assert message.startswith('Epoch 1, iteration 2: loss=nan')
    assert f'{module} is the first module'.replace('\\', '') in message
    assert '2.png, ' in message and '3.png' in message
    saved = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=False)
    assert all(bool(torch.isfinite(value).all()) for value in saved['state_dict'].values())
    assert not (tmp_path / 'work' / 'iter_2.pth').exists()


def test_ctrl_c_says_in_one_line_how_to_go_on(data, tmp_path, capsys):
    config = spoiled(data, tmp_path, 'interrupt', bits=4)
    with pytest.raises(SystemExit) as ended, command_line.command_line():
        launch.train(config)
    assert ended.value.code == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('Stopped in epoch 1, iteration 2 of 2. The same command with --resume')
    assert last.endswith('iter_1.pth.')


def test_a_training_ends_with_what_was_written_and_what_comes_next(data, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(launch, 'what_comes_next',
                        lambda *given: said.append(what_comes_next(*given)) or said[-1])
    config = write(run_cfg(data, tmp_path / 'work', bits=4), tmp_path)
    launch.train(config)
    checkpoint = tmp_path / 'work' / 'iter_2.pth'
    assert said == [f'Trained: {checkpoint}. Next: mmaqd test {config} {checkpoint}']


what_comes_next = launch.what_comes_next


def test_a_level_of_one_pixel_names_the_module_and_the_way_out(data, tmp_path):
    cfg = run_cfg(data, tmp_path / 'work')
    cfg.train_dataloader.batch_size = 1
    with pytest.raises(ValueError) as caught:
        launch.train(write(cfg, tmp_path))
    message = str(caught.value)
    assert message.startswith('neck.fpn_convs.3.bn got one value per channel ([1, 16, 1, 1])')
    assert 'batches of two images' in message


def test_forgotten_hooks_are_added(data, tmp_path):
    cfg = run_cfg(data, tmp_path / 'work', bits=4)
    cfg.custom_hooks = []
    runner = launch.train(write(cfg, tmp_path))
    names = {type(hook).__name__ for hook in runner.hooks}
    assert {'EpochSeedHook', 'InitializeIntervalsHook', 'LogIntervalsHook'} <= names
    assert len([hook for hook in runner.hooks if type(hook).__name__ == 'EpochSeedHook']) == 1


def test_an_error_of_several_processes_is_printed_once(monkeypatch):
    """Two processes of a launcher, which share a store."""
    port = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True)
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(port.port))
    with pytest.raises(KeyError, match='no such key'), command_line.command_line():
        raise KeyError('no such key')
    with pytest.raises(SystemExit) as ended, command_line.command_line():
        raise KeyError('no such key')
    assert ended.value.code == 1
    with pytest.raises(KeyError, match='another'), command_line.command_line():
        raise KeyError('another')


@pytest.mark.parametrize('message, printed', [('', 'Stopped.'), ('Go on so.', 'Go on so.')])
def test_ctrl_c_anywhere_else(message, printed, capsys):
    with pytest.raises(SystemExit), command_line.command_line():
        raise KeyboardInterrupt(message)
    assert capsys.readouterr().err.strip() == printed
