"""mmaqd benchmark: which file is meant, and the table."""
from __future__ import annotations

import pytest

from mmaqd.cli.benchmark import main, parse_file
from tests.helpers.engines import need
from tests.helpers.exported import exported_file


@pytest.mark.parametrize('text, key, path', [
    ('float.onnx', ('float', 'onnxruntime'), 'float.onnx'),
    ('out/4bit.onnx', ('4bit', 'onnxruntime'), 'out/4bit.onnx'),
    ('openvino:small=out/ov.onnx', ('small', 'openvino'), 'out/ov.onnx'),
])
def test_a_file_has_an_engine_and_a_name(text, key, path):
    assert parse_file(text) == (key, path)


@pytest.mark.parametrize('text', ['=a.onnx', 'openvino=a.onnx', 'openvino:a='])
def test_half_a_name_is_refused(text):
    with pytest.raises(SystemExit, match='is no ENGINE:NAME=FILE'):
        parse_file(text)


def test_one_name_for_two_files_is_refused():
    with pytest.raises(SystemExit, match='Two files have one name'):
        main(['a/model.onnx', 'b/model.onnx'])


def test_files_are_compared_at_their_own_size(tmp_path, capsys):
    need('onnx', 'onnxruntime')
    path = exported_file(tmp_path / 'model.onnx')
    main([str(path), f'onnxruntime:again={path}', '--rounds', '2'])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split('|')[2].strip() for line in lines[-2:]] == ['model', 'again']
