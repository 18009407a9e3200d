"""The command line of quantize_config.py: each option reaches the library function."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmaqd.conversion import automatic

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'quantize_config.py'


@pytest.fixture
def call(monkeypatch):
    """Calls the tool and returns what it passes to the library."""
    given: dict = {}

    def quantize_config(**arguments):
        given.update(arguments)
        return SimpleNamespace(summary='what was decided')

    monkeypatch.setattr(automatic, 'quantize_config', quantize_config)

    def run(*arguments: str) -> dict:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
        runpy.run_path(str(TOOL), run_name='__main__')
        return given

    return run


def test_nothing_but_what_is_required(call, capsys):
    assert call('c.py', '--out', 'low.py') == dict(
        config='c.py',
        out='low.py',
        bits=4,
        method='liq',
        cfg_options=None,
        size=None,
        real_images=False,
        overwrite=False)
    assert 'what was decided' in capsys.readouterr().out


def test_every_option(call):
    assert call('c.py', '--out', 'low.py', '--bits', '2', '--method', 'lsqplus', '--size', '64',
                '--real-images', '--overwrite', '--cfg-options', 'a.b=3') == dict(
                    config='c.py',
                    out='low.py',
                    bits=2,
                    method='lsqplus',
                    cfg_options={'a.b': 3},
                    size=64,
                    real_images=True,
                    overwrite=True)


@pytest.mark.parametrize('arguments, message', [
    (['c.py'], '--out'),
    (['c.py', '--out', 'low.py', '--method', 'pact'], 'invalid choice'),
])
def test_what_is_missing_or_unknown(call, capsys, arguments, message):
    with pytest.raises(SystemExit):
        call(*arguments)
    assert message in capsys.readouterr().err


def test_an_error_is_raised_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv',
                        [str(TOOL), 'c.py', '--out',
                         str(tmp_path / 'low.py'), '--bits', '16'])
    with pytest.raises(ValueError, match='--bits'):
        runpy.run_path(str(TOOL), run_name='__main__')


def test_the_methods_are_those_of_the_library(call):
    for method in automatic.METHODS:
        assert call('c.py', '--out', 'low.py', '--method', method)['method'] == method
