"""The matrix of detectors: its list, its table, and rows of detectors that fail."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import detector_matrix
import pytest
from detector_matrix import DETECTORS, MARKERS, make_rows, table, update, verdict
from detector_row import detector_row

from mmaqd.paths import upstream_config_path

DONE = dict(
    works=['config', 'calibrates', 'trains', 'predicts'],
    exceptions=['1 first layer', '2 predictions'],
    rules=3,
    macs={
        '4': .9,
        '8': .09,
        '32': .01
    },
    multi_level='yes, 5 levels')


def test_every_config_is_there():
    assert len(DETECTORS) == 45
    assert all(Path(upstream_config_path(config)).is_file() for config in DETECTORS.values())


@pytest.mark.parametrize('row, text', [
    (DONE, 'yes'),
    ({
        **DONE, 'without_gradient': ['a', 'b']
    }, 'yes, 2 intervals without a gradient'),
    (dict(works=['config'], error='KeyError: no\n  data'), 'no (calibrates): KeyError: no data'),
    (dict(works=[], error='crashed (-11)'), 'no (config): crashed (-11)'),
])
def test_verdict(row, text):
    assert verdict(row) == text


def test_table_has_a_row_for_each_detector():
    lines = table({'A|B': DONE, 'C': dict(works=[], error='no')}).splitlines()
    assert lines[2] == ('| A/B | 1 first layer; 2 predictions | 3 | 90 / 9 / 1 | yes, 5 levels | '
                        'yes |')
    assert lines[3] == '| C | – | – | – | – | no (config): no |'


def test_the_document_around_the_table_stays(tmp_path):
    document = tmp_path / 'detectors.md'
    document.write_text(f'before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n')
    for _ in range(2):
        update(document, 'new')
    assert document.read_text() == f'before\n{MARKERS[0]}\nnew\n{MARKERS[1]}\nafter\n'


def test_a_crash_is_a_row_and_rows_are_made_once(monkeypatch, tmp_path, capsys):
    made = []

    def row(config, options):
        assert options is None
        if config == 'bad.py':
            os._exit(11)
        return dict(DONE, config=config)

    monkeypatch.setattr(detector_matrix, 'detector_row', row)
    monkeypatch.setattr(detector_matrix, 'DETECTORS', {'A B': 'bad.py', 'C': 'good.py'})
    rows = make_rows(['A B', 'C'], tmp_path / 'rows')
    assert rows['A B']['error'] == 'crashed (11)' and rows['C']['works'] == DONE['works']
    assert '2 of 2: C: yes' in capsys.readouterr().out
    monkeypatch.setattr(detector_matrix, '_make_row', lambda *given: made.append(given))
    assert make_rows(['A B', 'C'], tmp_path / 'rows') == rows and not made
    make_rows(['C'], tmp_path / 'rows', anew=True)
    assert [config for config, *_ in made] == ['good.py']


def test_a_detector_that_can_not_be_quantized_says_why():
    row = detector_row('soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    assert row['works'] == [] and 'model.detector of its own' in row['error']


def test_the_whole_row_of_a_small_detector():
    row = detector_row('yolox/yolox_nano_8xb8-300e_coco.py')
    assert 'error' not in row, row
    assert row['works'] == DONE['works'] and row['without_gradient'] == []
    assert row['multi_level'] == 'no: its levels have layers of their own'
    assert sum(row['macs'].values()) == pytest.approx(1, abs=1e-3) and '32' not in row['macs']
    assert row['learned'] > 100 and row['exceptions'][-1] == '9 predictions'


def test_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(detector_matrix, 'detector_row',
                        lambda config, _: dict(DONE, config=config))
    monkeypatch.setattr(sys, 'argv', ['x', 'YOLOX*', '--out', str(tmp_path)])
    detector_matrix.main()
    assert {path.stem for path in tmp_path.glob('*.json')} == {'YOLOX-tiny', 'YOLOX-nano'}
    assert json.loads((tmp_path / 'YOLOX-nano.json').read_text())['rules'] == 3
    assert '| YOLOX-nano | 1 first layer;' in capsys.readouterr().out
