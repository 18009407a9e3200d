"""The command line of the study."""
from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import accuracy_study
import pytest
from accuracy_study import found_seeds, main, parse_args, select
from study_schedule import Schedule


@pytest.fixture
def rows(make_row, monkeypatch):
    rows = [
        make_row('base'),
        make_row('long', start='base'),
        make_row('low-a', start='base', twin='long', groups=('methods', )),
        make_row('low-b', start='base', twin='long', groups=('methods', ), reference='low-a'),
        make_row('lonely')
    ]
    rows = {row.name: row for row in rows}
    monkeypatch.setattr(accuracy_study, 'all_rows', lambda: rows)
    return rows


@pytest.fixture
def study(rows, fake_tools, tmp_path, monkeypatch):
    """Calls the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setattr(accuracy_study, 'Schedule', partial(Schedule, poll_seconds=0.01))
    return lambda *arguments: main(['--out', 'out', *arguments])


@pytest.mark.parametrize('patterns, groups, names', [
    (['lonely'], ['main'], ['lonely']),
    (['lonely'], ['methods'], []),
    (['low-a'], ['main', 'methods'], ['base', 'long', 'low-a']),
    (['*'], ['methods'], ['base', 'long', 'low-a', 'low-b']),
    (['low-b', 'lonely'], ['main', 'methods'], ['base', 'long', 'low-a', 'low-b', 'lonely']),
])
def test_rows_bring_along_what_they_need_and_are_compared_with(rows, patterns, groups, names):
    assert list(select(rows, patterns, groups)) == names


def test_a_pattern_without_a_row_is_an_error(rows):
    with pytest.raises(ValueError, match="--rows: 'lwo-a' matches none of base, long"):
        select(rows, ['lwo-a'], ['main'])


def test_the_splits_have_folders_of_their_own():
    assert parse_args([]).out == Path('work_dirs/accuracy_study')
    assert parse_args(['--split', 'val']).out == Path('work_dirs/accuracy_study_val')
    assert parse_args(['--split', 'val', '--out', 'here']).out == Path('here')


def test_the_study_runs_and_reports(study, tmp_path, capsys):
    page = tmp_path / 'page.md'
    page.write_text('\n'.join(accuracy_study.update_page.__globals__['MARKERS']))
    assert study('--rows', 'low-a', '--seeds', '0', '3', '--page', 'page.md') == 0
    assert found_seeds(Path('out')) == [0, 3]
    assert '40.0 ± 0.0' in page.read_text()
    assert 'Not run yet: 1 of ' in page.read_text()  # low-b, which was not asked for
    capsys.readouterr()
    assert study('--list', '--seeds', '0', '1') == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ['low-a', '0:', 'AP', '40.0', '1:', '-']
    assert lines[3].split() == ['low-b', '0:', '-', '1:', '-']


def test_a_failure_is_counted_and_named(study, rows, capsys):
    rows['lonely'].overrides['fake.fails'] = True
    assert study('--rows', 'lonely', '--seeds', '0') == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(
        'FAILED: lonely, seed 0: train.py ended with exit code 1')


def test_a_report_runs_nothing(study, fake_tools):
    assert study('--report') == 0
    assert fake_tools.read_text() == ''
    assert 'Not run yet' in Path('out/report/accuracy.md').read_text()


def test_a_record_of_another_machine_is_reported_too(study, capsys):
    study('--rows', 'low-a', '--seeds', '0')
    os.rename('out', 'elsewhere')
    assert study('--rows', 'low-b', '--seeds', '1', '--record',
                 'elsewhere/report/accuracy.json') == 0
    runs = json.loads(Path('out/report/accuracy.json').read_text())
    assert {
        name: list(row['runs'])
        for name, row in runs.items()
    } == {
        'base': ['0', '1'],
        'long': ['0', '1'],
        'low-a': ['0', '1'],
        'low-b': ['1'],
        'lonely': [],
    }


def test_list_shows_how_far_each_run_is(study, rows, capsys):
    rows['lonely'].overrides['fake.dies_after'] = 2
    study('--rows', 'lonely', '--seeds', '0')
    capsys.readouterr()
    study('--rows', 'lonely', '--seeds', '0', '--list')
    assert capsys.readouterr().out.split() == ['lonely', '0:', 'epoch', '2/3']
    rows['lonely'].overrides['model.depth'] = 9
    study('--rows', 'lonely', '--seeds', '0', '--list')
    assert capsys.readouterr().out.split() == ['lonely', '0:', 'other', 'settings']
