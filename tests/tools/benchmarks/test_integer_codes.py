"""The comparison of codes over test images, with a packed model and one image of BCCD."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from mmaqd.export.graph import Codes, IntegerGraph, Real
from tests.helpers.bccd import BCCD, needs_bccd
from tests.helpers.engines import need
from tools.benchmarks import integer_codes

CONFIGS = Path(__file__).parents[3] / 'configs' / 'bccd'
NAME = 'retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd'


@needs_bccd
def test_engines_agree_and_convs_are_listed(monkeypatch, capsys) -> None:
    need('onnx', 'onnxruntime')
    monkeypatch.setenv('MMAQD_BCCD', str(BCCD))
    monkeypatch.setattr(sys, 'argv', [
        'integer_codes.py',
        str(CONFIGS / f'{NAME}.py'),
        str(CONFIGS / 'packed' / f'{NAME}.safetensors'), '--images', '1', '--engines', 'onnxruntime'
    ])
    integer_codes.main()
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith('| ONNX Runtime')]
    assert len(rows) == 4 and all(row.endswith('| 0 |') for row in rows)
    shares = [line for line in text.splitlines() if line.endswith(' % |')]
    assert len(shares) > 30 and shares[0].startswith('| backbone.layer1.0.conv1 |')


def test_what_differs_is_counted() -> None:
    edges = dict(a=Codes('a', -2, 1, 1.0), p=Real('p'))
    graph = IntegerGraph(edges['a'], edges, (), {}, (('p', ), ), ())
    given = dict(a=torch.tensor([-2., 0., 1.]), p=torch.tensor([0.5, 1.5]))
    found = {'a': np.array([0, 2, 2], np.uint8), 'cls_score.0': np.array([0.5, 1.5], np.float32)}
    assert list(integer_codes.differing(graph, given, found)) == [1, 0]
