"""Results of other machines beside those of this one."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_record import merge, read_record
from study_report import write_report


@pytest.fixture
def rows(make_row):
    rows = [
        make_row('base'),
        make_row('low', start='base', overrides={'model.depth': 2}),
        make_row('lower', start='low', twin='base'),
        make_row('taught', teacher='base', overrides={'model.teacher': '{teacher}'}),
        make_row('other'),
    ]
    return {row.name: row for row in rows}


@pytest.fixture
def record(rows, result, tmp_path) -> Path:
    """What a study with seeds 0 and 1 has written."""
    results = {
        name: {
            seed: result(ap + seed / 100)
            for seed in (0, 1)
        }
        for name, ap in dict(base=0.4, low=0.3, lower=0.2, taught=0.1).items()
    }
    write_report(rows, results, tmp_path)
    return tmp_path / 'accuracy.json'


def seeds_of(results) -> dict[str, list[int]]:
    return {name: sorted(runs) for name, runs in results.items() if runs}


def test_what_was_written_is_read(rows, record):
    results = read_record(record, rows, 'test')
    assert seeds_of(results) == dict.fromkeys(('base', 'low', 'lower', 'taught'), [0, 1])
    assert results['low'][1]['metrics']['bbox_mAP'] == 0.31


def test_results_of_the_other_split_are_left_out(rows, record):
    assert seeds_of(read_record(record, rows, 'val')) == {}


@pytest.mark.parametrize('name, change', [
    ('low', dict(config='other.py')),
    ('low', dict(overrides={'model.depth': 3})),
    ('low', dict(start='other')),
    ('taught', dict(teacher='other')),
])
def test_results_of_other_settings_are_left_out_and_named(rows, record, name, change):
    rows[name] = replace(rows[name], **change)
    lines = []
    kept = {'base', 'low', 'lower', 'taught'} - {name}
    assert seeds_of(read_record(record, rows, 'test', lines.append)) == dict.fromkeys(kept, [0, 1])
    assert len(lines) == 1 and f'{name} is left out' in lines[0]


def test_another_float_row_to_compare_with_leaves_results_alone(rows, record):
    rows['lower'] = replace(rows['lower'], twin='other')
    assert seeds_of(read_record(record, rows, 'test', pytest.fail))['lower'] == [0, 1]


def test_results_of_a_row_that_is_gone_are_left_out(rows, record):
    lines = []
    del rows['lower']
    assert seeds_of(read_record(record, rows, 'test', lines.append)) == dict(
        base=[0, 1], low=[0, 1], taught=[0, 1])
    assert len(lines) == 1 and 'lower is left out' in lines[0]


@pytest.mark.parametrize('text', ['', '[]', '[1]', '{"low": 1}', '{"low": {"runs": {}}}'])
def test_another_file_is_refused(rows, tmp_path, text):
    path = tmp_path / 'some.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='--record: .*some.json'):
        read_record(path, rows, 'test')


def test_a_missing_file_is_refused(rows, tmp_path):
    with pytest.raises(ValueError, match='--record: .*none.json can not be read'):
        read_record(tmp_path / 'none.json', rows, 'test')


def test_further_seeds_are_added(rows):
    merged = merge(
        dict(base={3: 'here'}, low={3: 'here'}, other={}),
        dict(base={0: 'there'}, lower={0: 'there'}), rows)
    assert merged == dict(
        base={
            0: 'there',
            3: 'here'
        }, low={3: 'here'}, lower={0: 'there'}, other={})


def test_rows_that_start_from_one_model_are_of_one_machine(rows):
    found = dict(base={0: 'here'}, other={})
    recorded = dict(
        base={0: 'there', 1: 'there'}, low={0: 'there', 1: 'there'}, lower={0: 'there'},
        other={0: 'there'})  # yapf: disable
    merged = merge(found, recorded, rows)
    assert merged == dict(
        base={
            0: 'here',
            1: 'there'
        }, low={1: 'there'}, lower={}, other={0: 'there'})
    assert found == dict(base={0: 'here'}, other={})


def test_merging_its_own_record_changes_nothing(rows, record):
    recorded = read_record(record, rows, 'test')
    assert merge(recorded, recorded, rows) == recorded
