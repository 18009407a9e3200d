"""Latencies are measured in turn; profiles name what the engines run."""
from __future__ import annotations

import pytest

from mmaqd.export.latency import ENGINES, Latency, load, measure, profile
from mmaqd.export.onnx import to_onnx
from tests.helpers.engines import need
from tests.helpers.integer_graphs import random_detector

SHAPE = (1, 3, 24, 32)


@pytest.mark.parametrize('engine', ENGINES)
def test_files_are_measured_and_profiled(engine: str, tmp_path) -> None:
    need('onnx', engine)
    path = tmp_path / 'detector.onnx'
    path.write_bytes(to_onnx(random_detector(0), *SHAPE[2:], engine=engine).SerializeToString())
    files = {(name, engine): str(path) for name in ('one', 'two')}
    found = measure(files, SHAPE, rounds=3)
    assert [(each.name, len(each.repeats)) for each in found] == [('one', 3), ('two', 3)]
    rows = profile(engine, str(path), SHAPE, runs=2)
    assert any('Conv' in operator for operator, _, _ in rows)
    assert sum(share for _, _, share in rows) == pytest.approx(1)


@pytest.fixture
def path(request, tmp_path) -> str:
    need('onnx', request.getfixturevalue('engine'))
    engine, path = request.getfixturevalue('engine'), tmp_path / 'detector.onnx'
    path.write_bytes(to_onnx(random_detector(0), *SHAPE[2:], engine=engine).SerializeToString())
    return str(path)


@pytest.mark.parametrize('engine', ENGINES)
def test_the_shape_is_that_of_the_file(engine: str, path: str) -> None:
    assert list(load(engine, path).shape) == list(SHAPE)
    found, = measure({('one', engine): path}, rounds=1)
    assert len(found.repeats) == 1
    with pytest.raises(ValueError, match='takes an input of 1 x 3 x 24 x 32, but --shape says 1 x'):
        measure({('one', engine): path}, (1, 3, 64, 64))


@pytest.mark.parametrize('engine', ENGINES)
def test_what_is_no_file_is_said_in_a_sentence(engine: str, tmp_path) -> None:
    need('onnx', engine)
    with pytest.raises(FileNotFoundError, match='export.py writes it'):
        load(engine, str(tmp_path / 'none.onnx'))
    (tmp_path / 'text.onnx').write_text('text')
    with pytest.raises(ValueError, match=f'no ONNX file that {engine} can run'):
        load(engine, str(tmp_path / 'text.onnx'))


def test_the_median_is_of_all_rounds() -> None:
    assert Latency('a', 'openvino', (3.0, 1.0, 100.0)).median == 3.0


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match='tensorrt.*onnxruntime'):
        load('tensorrt', 'file.onnx')
