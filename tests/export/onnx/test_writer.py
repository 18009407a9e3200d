"""What an ONNX file looks like, and what is refused."""
from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from mmaqd.export.graph import Codes, IntegerGraph
from mmaqd.export.onnx import Builder, add_network, packed_versions, to_onnx
from mmaqd.export.onnx.packed import add_packed, grid, pack
from tests.helpers.engines import assert_same, need, reference, run_onnxruntime
from tests.helpers.integer_graphs import GraphMaker, random_detector

HEIGHT, WIDTH = 24, 32


@pytest.fixture(autouse=True)
def with_onnx() -> None:
    need('onnx')


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_inputs_and_outputs_have_names_types_and_shapes(engine: str) -> None:
    model = to_onnx(random_detector(0), HEIGHT, WIDTH, 2, engine=engine)
    assert [each.name for each in model.graph.input] == ['input']
    assert [each.name for each in model.graph.output
            ] == ['cls_score.0', 'cls_score.1', 'bbox_pred.0', 'bbox_pred.1']
    shape = [side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [2, 5, 6, 8]
    assert model.opset_import[0].version <= 21 and model.ir_version <= 10
    assert all(not node.domain for node in model.graph.node)


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_shared_weights_are_stored_once(engine: str) -> None:
    graph = random_detector(0)
    model = to_onnx(graph, HEIGHT, WIDTH, engine=engine)
    stored = [each for each in model.graph.initializer if each.name.startswith('tower')]
    assert [list(each.dims) for each in stored] == [list(graph.weights['tower'].shape)]


@pytest.mark.parametrize(('bits', 'opset', 'type_'), [(2, 25, 'UINT2'), (3, 21, 'UINT4'),
                                                      (4, 21, 'UINT4'), (5, 21, 'INT8')])
def test_packed_weights_compute_the_same(bits: int, opset: int, type_: str, tmp_path) -> None:
    need('onnxruntime')
    import onnx
    graph, largest = random_detector(bits, bits, bits), 2**bits - 1
    for key, weight in graph.weights.items():
        if np.abs(weight).max() <= 2**bits:  # LIQ's odd grid
            weight[:] = np.clip(2 * weight + 1, -largest, largest)
    model = to_onnx(graph, HEIGHT, WIDTH, packed=True)
    assert model.opset_import[0].version == opset
    data_type = getattr(onnx.TensorProto, type_)
    stored = [each for each in model.graph.initializer if each.name.startswith('tower')]
    assert [each.data_type for each in stored] == [data_type]
    image = np.random.default_rng(0).integers(0, 256, (1, 3, HEIGHT, WIDTH)).astype(np.uint8)
    for optimized in (True, False):
        path = tmp_path / 'optimized.onnx'
        found = run_onnxruntime(model, image, optimized, save=path)
        assert_same(graph, found, reference(graph, image))
    run_onnxruntime(model, image, save=path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert 'DequantizeLinear' not in operators and 'Conv' not in operators


@pytest.mark.parametrize('bits', range(1, 9))
def test_the_grid_of_weights(bits: int) -> None:
    numbers = np.arange(2**bits)
    even = (numbers - 2**(bits - 1)).astype(np.int8)
    assert (grid(even).bits, grid(even).step) == (bits, 1)
    found = pack(even)
    assert (found.bits if found else 8) == {1: 2, 2: 2, 3: 4, 4: 4}.get(bits, 8)
    if found:
        np.testing.assert_array_equal(found.step * found.numbers.astype(np.int64) + found.lowest,
                                      even)


def test_constant_weights_have_a_grid() -> None:
    assert grid(np.full((2, 2), -7, np.int8)).bits == 1


@pytest.mark.parametrize('codes', [(-128, 127), (-126, -42, 42, 126)])
@pytest.mark.parametrize('zero', [0, 128])
def test_packed_codes_may_be_as_far_apart_as_int8_goes(codes: tuple, zero: int, tmp_path) -> None:
    """What unpacks them stays in the range of its types, so no engine may wrap a number."""
    need('onnxruntime')
    weight = np.array(codes, np.int8)
    builder = Builder(25, 13)
    builder.input('input', np.uint8, [1])  # read by nothing
    name = add_packed(builder, pack(weight), 'weight', zero)
    model = builder.model(
        [builder.node('Cast', [name], 'codes', to=builder.onnx.TensorProto.INT32)])
    for optimized in (True, False):
        found, = run_onnxruntime(model, np.zeros(1, np.uint8), optimized).values()
        np.testing.assert_array_equal(found, weight.astype(int) + zero)


def test_nodes_can_be_added_to_a_network() -> None:
    need('onnxruntime')
    graph = random_detector(1)
    builder = Builder(*packed_versions(graph))
    image = builder.input('image', np.uint8, [1, 3, 'height', 'width'])
    (first, _), _ = add_network(builder, graph, image, packed=True)
    assert first == 'cls_score.0'
    model = builder.model([builder.node('Sigmoid', [first], 'scores')], stride='4')
    assert {each.key: each.value for each in model.metadata_props} == {'stride': '4'}


def test_wrong_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="'tensorrt'.*onnxruntime"):
        to_onnx(random_detector(0), HEIGHT, WIDTH, engine='tensorrt')
    with pytest.raises(ValueError, match='packed'):
        to_onnx(random_detector(0), HEIGHT, WIDTH, engine='openvino', packed=True)


def test_wide_streams_are_refused() -> None:
    graph = random_detector(0)
    name = next(node.output for node in graph.nodes if 'add' in node.name)
    wide = dataclasses.replace(graph, edges={**graph.edges, name: Codes(name, 0, 1023, 1.0)})
    with pytest.raises(ValueError, match=f'{name}.*0..1023.*stream_bit_width'):
        to_onnx(wide, HEIGHT, WIDTH)


def test_a_pool_with_another_size_is_refused() -> None:
    make = GraphMaker(np.random.default_rng(0))
    pooled = make.max_pool(make.conv('input', 2), 1, 2, 0, ceil_mode=True)
    graph: IntegerGraph = make.graph((make.apply(pooled), ))
    with pytest.raises(ValueError, match='ceil_mode'):
        to_onnx(graph, HEIGHT, WIDTH)


def test_without_onnx_it_says_what_to_install() -> None:
    code = ("import sys; sys.modules['onnx'] = None\n"
            'import mmaqd.export.onnx as writers\n'
            'try:\n    writers.Builder()\nexcept ImportError as error:\n    print(error)')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert "pip install 'mmaqd[export]'" in out.stdout
