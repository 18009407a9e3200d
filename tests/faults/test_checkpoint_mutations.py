"""A few of the 5,000 spoiled checkpoints of docs/reliability.md, of each kind."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checkpoint_mutations import CheckpointBench


@pytest.fixture(scope='module')
def bench(tmp_path_factory) -> CheckpointBench:
    return CheckpointBench(tmp_path_factory.mktemp('spoiled'), seed=1)


@pytest.mark.parametrize('kind', CheckpointBench.kinds)
def test_spoiled_checkpoint_is_right_or_refused(bench, kind):
    assert {bench.outcome(kind) for _ in range(4)} <= {'equal', 'refused'}


def test_the_bench_finds_what_is_wrong(bench, monkeypatch):
    """Without the checks it says so."""
    monkeypatch.setattr('mmaqd.checkpoints.reading.fault_of_file', lambda path: None)
    monkeypatch.setattr('mmaqd.checkpoints.fitting.check_values', lambda *_: None)
    found = {bench.outcome(kind) for kind in ('flip_bit', 'spoil_one_number') for _ in range(4)}
    assert 'other numbers than stored' in found


def test_a_call_in_a_file_leaves_its_mark(bench):
    """The marker that is looked for is one that would be there."""
    Path.touch(bench.marker)
    assert bench.outcome('add_text') == 'something ran'
    bench.marker.unlink()
