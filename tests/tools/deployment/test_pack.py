"""The command line of pack.py: each option reaches the library function."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path

import mmaqd.export

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'deployment' / 'pack.py'


def test_every_option(monkeypatch):
    given: dict = {}
    monkeypatch.setattr(mmaqd.export, 'pack_checkpoint',
                        lambda **arguments: given.update(arguments))
    monkeypatch.setattr(
        sys, 'argv',
        [str(TOOL), 'c.py', 'low.pth', '--out', 'o.safetensors', '--cfg-options', 'a.b=1'])
    monkeypatch.syspath_prepend(str(TOOL.parent))
    runpy.run_path(str(TOOL), run_name='__main__')
    assert given == dict(
        config='c.py', checkpoint='low.pth', out='o.safetensors', cfg_options={'a.b': 1})
