"""Performing runs with fake tools: order, failures, kills, locks, adoption."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import study_schedule
from study_runs import build_runs
from study_schedule import Schedule, make_slots

from mmaqd.demo.commands import start_tool

TOOLS = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'


class Study:
    """Rows in a folder of their own, and what the fake tools did."""

    def __init__(self, rows, folder, journal, seeds=(0, )):
        self.rows = {row.name: row for row in rows}
        self.folder, self.journal, self.seeds = folder, journal, seeds
        self.lines = []

    def runs(self):
        return build_runs(self.rows, self.seeds, self.folder / 'out', 'test')

    def schedule(self, jobs=1, report=None):
        slots = [dict(FAKE_SLOT=str(job)) for job in range(jobs)]
        return Schedule(self.runs(), slots, report or self.lines.append, poll_seconds=0.01)

    def perform(self, **arguments):
        failures = self.schedule(**arguments).perform()
        return {str(run): reason for run, reason in failures.items()}

    def done(self):
        """What the tools did so far, in order; then forgotten."""
        text = self.journal.read_text().splitlines()
        self.journal.write_text('')
        return text

    def states(self):
        return {str(run): run.next_step() for run in self.runs()}


@pytest.fixture
def study(fake_tools, tmp_path):
    return lambda *rows, **options: Study(rows, tmp_path, fake_tools, **options)


def epochs(place, first=1, last=3):
    return [f'{place} epoch {epoch}' for epoch in range(first, last + 1)]


def test_what_is_needed_comes_first_and_one_seed_after_the_other(study, make_row):
    one = study(
        make_row('base'),
        make_row('low', start='base', overrides={'train_cfg.max_epochs': 1}),
        make_row('calibrated', start='base', trains=False),
        seeds=(0, 1))
    assert one.perform() == {}
    assert one.done() == [
        line for seed in ('seed_0', 'seed_1') for line in [
            *epochs(f'base/{seed}'), f'base/{seed} test epoch_3.pth', f'low/{seed} epoch 1',
            f'low/{seed} test epoch_1.pth', f'calibrated/{seed} calibrate',
            f'calibrated/{seed} test calibrated.pth'
        ]
    ]
    assert set(one.states().values()) == {None}
    assert '[6/6] calibrated, seed 1: AP 40.0' in one.lines[-1]


def test_what_is_done_is_not_done_again(study, make_row):
    one = study(make_row('base'))
    one.perform()
    one.done()
    assert one.perform() == {}
    assert one.done() == []


def test_a_failed_run_is_reported_and_stops_only_what_needs_it(study, make_row):
    one = study(
        make_row('bad', overrides={'fake.fails': True}), make_row('after', start='bad'),
        make_row('good'))
    failures = one.perform()
    assert set(failures) == {'bad, seed 0', 'after, seed 0'}
    assert 'train.py ended with exit code 1' in failures['bad, seed 0']
    assert failures['bad, seed 0'].endswith('a line of the log\nout of luck')
    assert 'starts from bad, seed 0' in failures['after, seed 0']
    assert one.done() == [*epochs('good/seed_0'), 'good/seed_0 test epoch_3.pth']


def test_a_tool_that_writes_nothing_is_a_failure_not_a_loop(study, make_row):
    failures = study(make_row('empty', overrides={'fake.writes_nothing': True})).perform()
    assert 'wrote nothing' in failures['empty, seed 0']


def test_a_killed_training_goes_on(study, make_row):
    one = study(make_row('base', overrides={'fake.dies_after': 2}))
    assert f'exit code {-signal.SIGKILL}' in one.perform()['base, seed 0']
    assert one.done() == epochs('base/seed_0', 1, 2)
    assert one.perform() == {}
    assert one.done() == ['base/seed_0 epoch 3', 'base/seed_0 test epoch_3.pth']
    results = one.runs()[0].results
    assert results['all_is_measured'] and results['cpu_seconds'] > 0


def test_killed_between_training_and_test(study, make_row):
    one = study(make_row('base'))
    run = one.runs()[0]
    run.folder.mkdir(parents=True)
    start_tool('train.py', run.begin('train'), None, subprocess.DEVNULL).wait()
    one.done()
    assert one.perform() == {}
    assert one.done() == ['base/seed_0 test epoch_3.pth']


def test_a_training_by_hand_is_adopted(study, make_row):
    one = study(make_row('base'), make_row('low', start='base'))
    run = one.runs()[0]
    start_tool('train.py', run.arguments('train'), None, subprocess.DEVNULL).wait()
    one.done()
    assert one.perform() == {}
    assert one.done()[0] == 'base/seed_0 test epoch_3.pth'
    assert not run.results['all_is_measured']


def test_a_folder_with_other_settings_is_a_failure_of_its_own(study, make_row):
    study(make_row('base', overrides={'model.depth': 7})).perform()
    one = study(make_row('base'), make_row('low', start='base'), make_row('good'))
    failures = one.perform()
    assert 'other settings in model' in failures['base, seed 0']
    assert set(failures) == {'base, seed 0', 'low, seed 0'}


def test_the_run_of_another_process_is_waited_for(study, make_row):
    one = study(make_row('base'), make_row('other'))
    holder = one.runs()[0]
    holder.acquire()
    lines = []

    def report(line):
        lines.append(line)
        if line.startswith('[1/2] other'):
            holder.release()

    assert one.perform(report=report) == {}
    assert lines[0] == 'base, seed 0: another process works on it, waiting for that'
    assert one.done()[-1] == 'base/seed_0 test epoch_3.pth'


def test_several_at_a_time_each_in_a_slot_of_its_own(study, make_row, monkeypatch):
    used = []

    def start(name, arguments, environment, output):
        used.append((environment['FAKE_SLOT'], arguments[2]))
        return start_tool(name, arguments, environment, output)

    monkeypatch.setattr(study_schedule, 'start_tool', start)
    one = study(make_row('first'), make_row('second'), make_row('late', start='first'))
    assert one.perform(jobs=2) == {}
    assert [slot for slot, _ in used[:2]] == ['0', '1']
    assert set(one.states().values()) == {None}


def test_an_interruption_ends_the_tools_and_frees_the_runs(study, make_row):
    one = study(make_row('base', overrides={'fake.sleeps': 600}))

    def interrupt(line):
        raise KeyboardInterrupt

    schedule = one.schedule()
    schedule._end_steps = lambda: interrupt('')  # while a tool is going on
    with pytest.raises(KeyboardInterrupt):
        schedule.perform()
    run = one.runs()[0]
    assert run.acquire(), 'neither locked nor in use'
    assert run._attempts()[0]['cpu_seconds'] is not None


@pytest.mark.skipif(sys.platform != 'linux', reason='only the Linux kernel ends orphans for us')
def test_a_killed_study_goes_on(study, make_row, tmp_path):
    one = study(make_row('base', overrides={'fake.sleeps': 0.5}))
    driver = tmp_path / 'driver.py'
    driver.write_text(f'''
import sys
from pathlib import Path
sys.path.insert(0, {str(TOOLS)!r})
import study_runs
from study_rows import Row
from study_schedule import Schedule
from mmaqd.demo import commands
root = Path({str(tmp_path)!r})
commands._ROOT = root
study_runs.config_path = lambda path: str(root / 'configs' / path)
row = Row('base', 'net.py', ('main', ), 'Net', overrides={{'fake.sleeps': 0.5}})
runs = study_runs.build_runs(dict(base=row), [0], root / 'out', 'test')
Schedule(runs, [dict()]).perform()
''')
    process = subprocess.Popen([sys.executable, str(driver)],
                               cwd=TOOLS.parents[1],
                               env={
                                   **os.environ, 'PYTHONPATH': str(TOOLS.parents[1])
                               })
    try:
        _wait_for(lambda: 'epoch 1' in one.journal.read_text())
    finally:
        process.kill()
        process.wait()
    assert one.perform() == {}
    assert one.done() == [*epochs('base/seed_0'), 'base/seed_0 test epoch_3.pth']
    assert not one.runs()[0].results['all_is_measured']


def _wait_for(condition):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError('waited in vain')


class TestTimeLeft:

    @pytest.fixture
    def schedule(self, study, make_row, monkeypatch):
        seconds = {'base': 3600.0 * 3, 'fast': 3600.0}
        monkeypatch.setattr(study_schedule.Run, 'seconds',
                            property(lambda run: seconds.get(run.row.name)))
        schedule = study(
            make_row('base'), make_row('low'), make_row('fast', detector='Small'),
            make_row('calibrated', start='base', trains=False)).schedule(jobs=2)
        return schedule

    def test_is_taken_from_the_runs_of_the_same_detector(self, schedule):
        schedule._waiting = [run for run in schedule.runs if run.row.name in ('low', 'calibrated')]
        assert schedule._time_left() == '; about 1.5 h left'  # 3 epochs of an hour, two at a time

    def test_is_not_guessed(self, schedule, study, make_row):
        other = study(make_row('unknown', detector='Huge')).runs()
        schedule._waiting = other
        assert schedule._time_left() == ''


class TestSlots:

    def test_on_a_cpu_each_run_has_one_thread(self, monkeypatch):
        monkeypatch.setattr(study_schedule.torch.cuda, 'is_available', lambda: False)
        assert make_slots(2) == [dict(OMP_NUM_THREADS='1')] * 2
        assert make_slots(None) == [dict(OMP_NUM_THREADS='1')]

    def test_each_gpu_has_a_run(self, monkeypatch):
        monkeypatch.setattr(study_schedule.torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(study_schedule.torch.cuda, 'device_count', lambda: 2)
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        names = [slot['CUDA_VISIBLE_DEVICES'] for slot in make_slots(3)]
        assert names == ['0', '1', '0']
        assert len(make_slots(None)) == 2
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
        assert [slot['CUDA_VISIBLE_DEVICES'] for slot in make_slots(None)] == ['4', '6']
