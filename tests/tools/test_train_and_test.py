"""The command lines of train.py and test.py: each option reaches the library function."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mmaqd.engine import launch

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def called(monkeypatch) -> dict:
    """What a tool passes to the library, instead of running it."""
    arguments: dict = {}
    monkeypatch.setattr(launch, 'train', lambda **given: arguments.update(given))
    monkeypatch.setattr(launch, 'test', lambda **given: arguments.update(given))
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    return arguments


def run_tool(monkeypatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(TOOLS / name), run_name='__main__')


def test_training_with_nothing_but_a_config(monkeypatch, called):
    run_tool(monkeypatch, 'train.py', 'c.py')
    assert called == dict(
        config='c.py',
        work_dir=None,
        amp=False,
        auto_scale_lr=False,
        resume=None,
        cfg_options=None,
        launcher='none')


def test_training_with_every_option(monkeypatch, called):
    run_tool(monkeypatch, 'train.py', 'c.py', '--work-dir', 'w', '--amp', '--auto-scale-lr',
             '--resume', '--launcher', 'pytorch', '--local-rank', '1', '--cfg-options', 'a.b=3',
             'c=[x,y]')
    assert called == dict(
        config='c.py',
        work_dir='w',
        amp=True,
        auto_scale_lr=True,
        resume='auto',
        cfg_options={
            'a.b': 3,
            'c': ['x', 'y']
        },
        launcher='pytorch')


def test_training_resumed_from_a_file(monkeypatch, called):
    run_tool(monkeypatch, 'train.py', 'c.py', '--resume', 'a.pth')
    assert called['resume'] == 'a.pth'


def test_testing_with_nothing_but_a_checkpoint(monkeypatch, called):
    run_tool(monkeypatch, 'test.py', 'c.py', 'a.pth')
    assert called == dict(
        config='c.py',
        checkpoint='a.pth',
        work_dir=None,
        out=None,
        show=False,
        show_dir=None,
        wait_time=2,
        tta=False,
        engine=None,
        cfg_options=None,
        launcher='none')


def test_testing_with_every_option(monkeypatch, called):
    run_tool(monkeypatch, 'test.py', 'c.py', 'a.pth', '--work-dir', 'w', '--out', 'o.pkl', '--show',
             '--show-dir', 's', '--wait-time', '0.5', '--tta', '--engine', 'openvino', '--launcher',
             'slurm', '--local_rank', '1', '--cfg-options', 'a=1')
    assert called == dict(
        config='c.py',
        checkpoint='a.pth',
        work_dir='w',
        out='o.pkl',
        show=True,
        show_dir='s',
        wait_time=0.5,
        tta=True,
        engine='openvino',
        cfg_options=dict(a=1),
        launcher='slurm')
