"""The command lines of convert_integer.py and export.py: each option reaches the function."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import mmaqd.export
import mmaqd.export.exported

TOOLS = Path(__file__).resolve().parents[3] / 'tools' / 'deployment'
COMMON = dict(config='c.py', checkpoint='low.pth', cfg_options={'a.b': 1})
OPTIONS = ['--stream-bits', '7', '--allow-float', '--cfg-options', 'a.b=1']


def run(monkeypatch: pytest.MonkeyPatch, module: object, function: str, tool: str, *arguments:
        str) -> dict:
    given: dict = {}
    monkeypatch.setattr(module, function, lambda **arguments: given.update(arguments))
    monkeypatch.setattr(sys, 'argv', [tool, 'c.py', 'low.pth', *arguments])
    monkeypatch.syspath_prepend(str(TOOLS))
    runpy.run_path(str(TOOLS / tool), run_name='__main__')
    return given


def test_converting_with_every_option(monkeypatch):
    given = run(monkeypatch, mmaqd.export, 'convert_integer', 'convert_integer.py', '--out',
                't.pth', '--num-images', '5', *OPTIONS)
    assert given == dict(COMMON, out='t.pth', num_images=5, stream_bit_width=7, allow_float=True)


def test_exporting_with_every_option(monkeypatch):
    given = run(monkeypatch, mmaqd.export.exported, 'export_detector', 'export.py', '--out',
                'm.onnx', '--size', '64', '96', '--batch', '2', '--engine', 'openvino', '--dynamic',
                '--raw', '--packed', '--float', '--qonnx', *OPTIONS)
    assert given == dict(
        COMMON,
        out='m.onnx',
        size=[64, 96],
        batch=2,
        engine='openvino',
        dynamic=True,
        raw=True,
        qonnx=True,
        packed=True,
        in_float=True,
        stream_bit_width=7,
        allow_float=True)
