"""Performing and recording runs with fake tools: order, failures, kills, other machines."""
from __future__ import annotations

import fcntl
import json
import shutil
from functools import partial
from pathlib import Path

import accuracy_study
import pytest
from accuracy_study import Schedule, main


@pytest.fixture
def study(journal, table, monkeypatch):
    """Calls the command line; what the tools did meanwhile, then forgotten."""
    monkeypatch.setattr(accuracy_study, 'Schedule', partial(Schedule, poll_seconds=0.01))

    def call(*arguments, failed=0):
        assert main(['--table', str(table), '--out', 'out', *arguments]) == failed
        lines = journal.read_text().splitlines()
        journal.write_text('')
        return lines

    return call


def change(table, row: str, overrides: dict) -> None:
    content = json.loads(table.read_text())
    content['rows'][row]['overrides'] = overrides
    table.write_text(json.dumps(content))


def record(path: str = 'out/accuracy.json') -> dict:
    return json.loads(Path(path).read_text())


def epochs(place: str, first: int = 1, start: str = 'None') -> list[str]:
    return [f'out/{place} epoch {epoch} from {start}' for epoch in range(first, 4)]


def test_rows_bring_along_what_they_need_and_what_that_needs(study):
    base, long, low = (f'{row}/seed_5' for row in ('base', 'long', 'low'))
    start = f'out/{base}/epoch_3.pth'
    assert study('--rows', 'low', '--seeds', '5') == [
        *epochs(base), f'out/{base}/test of {start}', *epochs(long, start=start),
        f'out/{long}/test of out/{long}/epoch_3.pth', *epochs(low, start=start),
        f'out/{low}/test of out/{low}/epoch_3.pth'
    ]
    assert study('--rows', 'low', '--seeds', '5') == []


def test_each_row_has_its_seeds_and_several_run_at_a_time(study):
    study('--jobs', '3')
    assert {name: list(row['runs']) for name, row in record().items()} == dict(
        base=['0', '1'], long=['0', '1'], low=['0'], calibrated=['0', '1'],
        lonely=['0'])  # yapf: disable


def test_everything_is_recorded_a_line_for_each_run(study, tmp_path):
    study('--rows', 'low')
    row = record()['low']
    assert row['overrides'] == {'model.bits': 2, 'model.teacher': '{twin}'}
    assert (row['config'], row['needs']) == ('low.py', dict(start='base', twin='long'))
    run = row['runs']['0']
    assert (run['row'], run['seed'], run['split']) == ('low', 0, 'test')
    assert run['metrics']['bbox_mAP'] == 0.4 and run['metrics']['bbox_mAP_s'] == 0
    assert 'time' not in run['metrics'] and run['machine']
    assert run['commands'][0].startswith('python tools/train.py configs/low.py --work-dir out/low')
    assert len(run['resampled']) == 200 and {'python', 'torch', 'mmdet'} <= set(run['versions'])
    lines = (tmp_path / 'out' / 'accuracy.json').read_text().splitlines()
    assert sum('"machine"' in line for line in lines) == 3


def test_a_failed_run_stops_only_what_needs_it(study, capsys):
    lines = study('--rows', '*', '--seeds', '13', '0', '--jobs', '2', failed=2)
    assert not any('seed_13' in line for line in lines)
    assert len(record()['calibrated']['runs']) == 1
    assert 'FAILED: base, seed 13: train.py ended with exit code 1, see out/base/seed_13/study' \
        in capsys.readouterr().out


def test_a_killed_training_goes_on(study, table):
    change(table, 'lonely', {'dies_after': 2})
    assert len(study('--rows', 'lonely', failed=1)) == 2
    assert study('--rows', 'lonely')[0] == epochs('lonely/seed_0', 3)[0]


def test_what_was_recorded_on_another_machine_is_left_alone(study):
    study('--rows', 'low', '--record', 'record.json')
    shutil.move('out', 'elsewhere')
    assert study('--rows', 'low', '--record', 'record.json') == []
    with pytest.raises(ValueError, match='needs the checkpoint of long, seed 0, which is recorded'):
        study('--rows', 'calibrated', '--seeds', '0', '--record', 'record.json')
    study('--rows', 'calibrated', '--seeds', '1', '--record', 'record.json')
    assert list(record('record.json')['long']['runs']) == ['0', '1']


def test_what_is_finished_goes_into_another_record_without_running(study):
    study('--rows', 'lonely')
    assert study('--rows', 'lonely', '--record', 'record.json') == []
    assert record('record.json') == record()


@pytest.mark.parametrize('arguments, message', [
    (['--rows', 'lnely'], "--rows: 'lnely' matches none of base, long"),
    (['--split', 'val'], 'has runs of another split than val'),
])
def test_mistakes_are_named(study, arguments, message):
    study('--rows', 'lonely')
    with pytest.raises(ValueError, match=message):
        study(*arguments)


def test_a_recorded_row_keeps_its_settings(study, table):
    study('--rows', 'lonely')
    change(table, 'lonely', {'sizes': 5})
    with pytest.raises(ValueError, match='has lonely with other settings'):
        study('--rows', 'base')


def test_one_study_at_a_time(study):
    study('--rows', 'lonely')
    with open('out/lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match='Another study works in out'):
            study('--rows', 'lonely')
