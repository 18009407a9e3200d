"""The command lines of tools/analysis_tools: each option reaches the library function."""
from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmaqd.analysis
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build_calibrated

TOOLS = Path(__file__).resolve().parents[3] / 'tools' / 'analysis_tools'
COMMON = dict(config='c.py', checkpoint='c.pth', out=None, cfg_options=None, device=None)
CASES = {
    'level_statistics': ('report_level_statistics', dict(split='train', num_batches=16,
                                                         layers='*'), ['--layers',
                                                                       'a.*'], dict(layers='a.*')),
    'quantization_noise':
    ('report_quantization_noise', dict(split='train', num_batches=2,
                                       layers='*'), ['--layers', 'a.*'], dict(layers='a.*')),
    'sensitivity':
    ('report_sensitivity',
     dict(split=None, num_batches=4, by='stage', groups=(), metric=None, all_but_one=False),
     ['--by', 'layer', '--groups', 'a', 'b', '--metric', 'AP',
      '--all-but-one'], dict(by='layer', groups=['a', 'b'], metric='AP', all_but_one=True)),
}


def call(monkeypatch, function, name, *arguments):
    """Run a tool with its library function replaced; gives the arguments of the call."""
    calls = []
    monkeypatch.setattr(mmaqd.analysis, function, lambda *args, **given: calls.append(
        (args, given)))
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')
    return calls[0]


@pytest.mark.parametrize('name', CASES)
def test_defaults(monkeypatch, name):
    function, defaults, _, _ = CASES[name]
    assert call(monkeypatch, function, name, 'c.py', 'c.pth') == ((), {**COMMON, **defaults})


@pytest.mark.parametrize('name', CASES)
def test_every_option(monkeypatch, name):
    function, _, options, expected = CASES[name]
    _, given = call(monkeypatch, function, name, 'c.py', 'c.pth', '--out', 'o', '--split', 'val',
                    '--num-batches', '7', '--device', 'cuda:1', *options, '--cfg-options', 'a.b=3')
    assert given == dict(
        config='c.py',
        checkpoint='c.pth',
        out='o',
        split='val',
        num_batches=7,
        device='cuda:1',
        cfg_options={'a.b': 3},
        **expected)


def test_intervals(monkeypatch):
    _, given = call(monkeypatch, 'report_intervals', 'plot_intervals', 'work', '--out', 'o')
    assert given == dict(work_dir='work', out='o')


def test_size(monkeypatch, tmp_path):
    config = tmp_path / 'c.py'
    run_cfg(tmp_path, tmp_path / 'work', bits=4).dump(str(config))
    (cfg, model, rows, out, shape), _ = call(monkeypatch, 'report_size', 'model_size', str(config),
                                             '--out', 'o', '--shape', '64', '96', '--cfg-options',
                                             'model.bbox_head.num_classes=5')
    assert (out, shape) == ('o', [64, 96])
    assert model.bbox_head.num_classes == cfg.model.bbox_head.num_classes == 5
    assert rows[0].module == 'backbone.conv1' and rows[0].weight_bits == 8


def test_a_tool_from_config_and_checkpoint_to_its_files(tmp_path):
    config = tmp_path / 'c.py'
    run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work', bits=4).dump(str(config))
    torch.save(dict(state_dict=build_calibrated(bits=4).state_dict(), meta={}), tmp_path / 'c.pth')
    subprocess.run([
        sys.executable,
        str(TOOLS / 'level_statistics.py'),
        str(config),
        str(tmp_path / 'c.pth'), '--num-batches', '1', '--device', 'cpu'
    ],
                   check=True,
                   capture_output=True)
    assert {path.name
            for path in (tmp_path / 'work' / 'analysis').iterdir()
            } == {'level_statistics.csv', 'level_statistics.json', 'level_statistics.png'}
