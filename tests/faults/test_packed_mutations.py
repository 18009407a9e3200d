"""A few of the 5,000 spoiled packed files of docs/reliability.md, of each kind."""
from __future__ import annotations

import pytest

pytest.importorskip('safetensors')

from tests.faults.packed_mutations import PackedBench, read, signed  # noqa: E402


@pytest.fixture(scope='module')
def bench(tmp_path_factory) -> PackedBench:
    return PackedBench(tmp_path_factory.mktemp('spoiled'), seed=1)


@pytest.mark.parametrize('kind', PackedBench.kinds)
def test_spoiled_file_is_right_or_refused(bench, kind):
    assert {bench.outcome(kind) for _ in range(6)} <= {'equal', 'refused'}


def test_a_good_file_is_equal(bench, monkeypatch):
    monkeypatch.setattr(bench, 'kinds', dict(nothing=lambda tensors, metadata, rng: None))
    assert bench.outcome('nothing') == 'equal'


def test_the_bench_finds_what_is_wrong(bench, monkeypatch):
    """Without the checks it says so."""
    monkeypatch.setattr('mmaqd.checkpoints.packed._digest', lambda key, tensor: 'any')
    monkeypatch.setattr(bench, 'data', signed(*read(bench.data)))
    found = {bench.outcome(kind) for kind in ('flip_bit', 'random_bytes') for _ in range(10)}
    assert 'other numbers than stored' in found
