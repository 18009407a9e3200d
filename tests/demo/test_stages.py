"""The resumable list of stages, with stages that only note that they were called."""
import json
from dataclasses import replace

import pytest

from mmaqd.demo import Stage, run_stages


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def record(tmp_path):
    return tmp_path / 'new' / 'stages.json'


@pytest.fixture
def calls():
    return []


@pytest.fixture
def stages(calls):
    return [
        Stage(
            name,
            f'do {name}',
            action=lambda name=name: calls.append(name),
            reset=lambda name=name: calls.append(f'reset {name}'),
            settings=dict(size=1)) for name in 'abc'
    ]


def killed(stage):

    def action():
        stage.action()
        raise Killed

    return replace(stage, action=action)


def run(stages, record):
    return run_stages(stages, record, report=lambda line: None)


def test_all_run_in_order(stages, record, calls):
    assert run(stages, record) == ['a', 'b', 'c']
    assert calls == ['reset a', 'a', 'reset b', 'b', 'reset c', 'c']


def test_finished_stages_are_skipped(stages, record, calls):
    run(stages, record)
    calls.clear()
    assert run(stages, record) == []
    assert calls == []


def test_goes_on_with_the_killed_stage_without_reset(stages, record, calls):
    with pytest.raises(Killed):
        run([stages[0], killed(stages[1]), stages[2]], record)
    calls.clear()
    assert run(stages, record) == ['b', 'c']
    assert calls == ['b', 'reset c', 'c']


def test_changed_settings_reset_a_stage_and_all_after_it(stages, record, calls):
    run(stages, record)
    calls.clear()
    stages[1] = replace(stages[1], settings=dict(size=2))
    assert run(stages, record) == ['b', 'c']
    assert calls == ['reset b', 'b', 'reset c', 'c']


def test_settings_changed_after_a_kill_reset_the_begun_stage(stages, record, calls):
    with pytest.raises(Killed):
        run([stages[0], killed(stages[1])], record)
    calls.clear()
    stages[1] = replace(stages[1], settings=dict(size=2))
    run(stages, record)
    assert calls == ['reset b', 'b', 'reset c', 'c']


def test_lost_products_are_made_again_and_what_follows_too(stages, record, calls):
    run(stages, record)
    calls.clear()
    stages[1] = replace(stages[1], is_intact=lambda: False)
    assert run(stages, record) == ['b', 'c']
    assert calls == ['b', 'c']


def test_what_follows_a_rerun_stage_stays_stale_over_a_kill(stages, record, calls):
    run(stages, record)
    with pytest.raises(Killed):
        run([stages[0], killed(replace(stages[1], is_intact=lambda: False)), stages[2]], record)
    calls.clear()
    assert run(stages, record) == ['b', 'c']


def test_an_error_in_a_stage_is_passed_on_and_nothing_after_it_runs(stages, record, calls):

    def fail():
        raise OSError('disk full')

    stages[1] = replace(stages[1], action=fail)
    with pytest.raises(OSError, match='disk full'):
        run(stages, record)
    assert calls == ['reset a', 'a', 'reset b']


def test_progress_is_told(stages, record):
    lines = []
    run(stages[:1], record)
    run_stages(stages[:2], record, lines.append)
    assert lines == ['[1/2] do a: done before', '[2/2] do b']


def test_names_must_differ(stages, record):
    with pytest.raises(ValueError, match='must differ'):
        run([stages[0], stages[0]], record)


@pytest.mark.parametrize('content', ['{"a": {"fin', '[1]', '{"a": 1}', '{"a": {}}'])
def test_a_foreign_record_is_refused(stages, tmp_path, content):
    record = tmp_path / 'stages.json'
    record.write_text(content)
    with pytest.raises(ValueError, match='no record of stages.*--fresh'):
        run(stages, record)


def test_record_is_complete_json_between_stages(stages, record):
    seen = []
    stages[1] = replace(stages[1], action=lambda: seen.append(json.loads(record.read_text())))
    run(stages, record)
    assert [seen[0][name]['finished'] for name in 'ab'] == [True, False]
