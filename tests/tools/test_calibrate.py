"""The command line of calibrate.py: each option reaches the library function."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mmaqd.engine import post_training

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'calibrate.py'


@pytest.fixture
def call(monkeypatch):
    """Calls the tool and returns what it passes to the library."""
    given: dict = {}
    monkeypatch.setattr(post_training, 'calibrate_checkpoint',
                        lambda **arguments: given.update(arguments))

    def run(*arguments: str) -> dict:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
        runpy.run_path(str(TOOL), run_name='__main__')
        return given

    return run


def test_nothing_but_what_is_required(call):
    assert call('c.py', 'float.pth', '--out', 'low.pth') == dict(
        config='c.py',
        checkpoint='float.pth',
        out='low.pth',
        num_batches=16,
        reestimate_bn=False,
        cfg_options=None)


def test_every_option(call):
    assert call('c.py', 'float.pth', '--out', 'low.pth', '--num-batches', '3', '--reestimate-bn',
                '--cfg-options', 'a.b=False') == dict(
                    config='c.py',
                    checkpoint='float.pth',
                    out='low.pth',
                    num_batches=3,
                    reestimate_bn=True,
                    cfg_options={'a.b': False})


def test_the_place_of_the_result_is_required(call, capsys):
    with pytest.raises(SystemExit):
        call('c.py', 'float.pth')
    assert '--out' in capsys.readouterr().err
