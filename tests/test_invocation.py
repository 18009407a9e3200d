"""How commands are spelled to the user, and what counts as Ctrl-C."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmaqd.invocation import SCRIPTS, command, was_interrupted

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('argv0, folder, name, expected', [
    ('/usr/bin/mmaqd', ROOT, 'test', 'mmaqd test c.py a.pth'),
    ('/any/test_of_another.py', ROOT, 'test', 'mmaqd test c.py a.pth'),
    ('', ROOT, 'test', 'mmaqd test c.py a.pth'),
    (f'{ROOT}/mmaqd/__main__.py', ROOT, 'pack', 'python -m mmaqd pack c.py a.pth'),
    ('tools/train.py', ROOT, 'test', 'python tools/test.py c.py a.pth'),
    ('tools/calibrate.py', ROOT, 'export', 'python tools/deployment/export.py c.py a.pth'),
    ('deployment/export.py', ROOT / 'tools', 'detect', 'python ./deployment/detect.py c.py a.pth'),
    ('/x/site-packages/mmaqd/.mim/tools/train.py', ROOT, 'test', 'mmaqd test c.py a.pth'),
    ('/a/tools/train.py', Path('/'), 'test', 'python a/tools/test.py c.py a.pth'),
    ('train.py', ROOT / 'docs', 'test', 'mmaqd test c.py a.pth'),
])
def test_a_command_is_spelled_as_this_one_was(monkeypatch, argv0, folder, name, expected):
    monkeypatch.setattr(sys, 'argv', [argv0])
    monkeypatch.chdir(folder)
    assert command(name, 'c.py', Path('a.pth')) == expected


def test_paths_with_spaces_can_be_pasted(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmaqd'])
    assert command('test', 'my config.py') == "mmaqd test 'my config.py'"


@pytest.mark.parametrize('script', SCRIPTS.values())
def test_the_scripts_are_there(script):
    assert (ROOT / 'tools' / script).is_file()


def test_an_error_that_came_of_ctrl_c_is_told_from_others():
    for stop in (KeyboardInterrupt, ValueError):
        try:
            try:
                raise stop
            except BaseException:
                raise SyntaxError('failed to format the config')
        except SyntaxError as error:
            assert was_interrupted(error) == (stop is KeyboardInterrupt)
    assert was_interrupted(KeyboardInterrupt()) and not was_interrupted(ValueError())
