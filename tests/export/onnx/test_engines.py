"""ONNX files give the twin's integers in every engine, on every edge."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmaqd.export import lower_detector
from mmaqd.export.graph import FloatConv, IntegerGraph, Requantize
from mmaqd.export.network import IntegerNetwork
from mmaqd.export.onnx import to_onnx, with_edges
from mmaqd.registry import MODELS
from tests.helpers.detector import model_cfg
from tests.helpers.engines import (ENGINES, assert_same, compile_openvino, need, reference,
                                   run_engine, run_onnxruntime, runtime_operators)
from tests.helpers.integer_graphs import GraphMaker, random_detector
from tests.helpers.networks import TinyDetector, calibrated
from tests.helpers.networks import image as random_image
from tests.helpers.networks import inputs, normalized, weights

HEIGHT, WIDTH = 40, 56
BITS = [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (2, 8), (8, 2), (4, 8), (8, 4)]
RUNS = {
    'onnxruntime': [dict(optimized=optimized, threads=threads) for optimized in (True, False)
                    for threads in (1, 2)],
    'openvino': [dict(threads=threads) for threads in (1, 2)],
}  # yapf: disable


def pixels(seed: int = 0,
           height: int = HEIGHT,
           width: int = WIDTH,
           batch: int = 1,
           channels: int = 3) -> np.ndarray:
    shape = (batch, channels, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def assert_engine_exact(engine: str, graph: IntegerGraph, *images: np.ndarray,
                        **options: Any) -> None:
    """A model and one that gives all its edges, as the engine runs them, against the twin."""
    need('onnx', engine)
    height, width = images[0].shape[2:]
    model = to_onnx(graph, height, width, len(images[0]), engine=engine, **options)
    edges = with_edges(model)
    given = {each.name for each in edges.graph.output}
    assert len(given & set(graph.edges)) >= len(graph.edges) - 1 - sum(map(len, graph.outputs))
    for image in images:
        expected = reference(graph, image)
        for each in (model, edges):
            for run in RUNS[engine]:
                assert_same(graph, run_engine(engine, each, image, **run), expected)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('bits', BITS, ids=str)
def test_every_width_is_exact(engine: str, bits: tuple[int, int]) -> None:
    graph = random_detector(sum(bits), *bits)
    assert_engine_exact(engine, graph, pixels(), np.full_like(pixels(), 255))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('bits', [2, 4, 8])
def test_signed_codes_and_padding_are_exact(engine: str, seed: int, bits: int) -> None:
    pad_code = (-1)**seed if seed % 2 == 0 else -1
    graph = random_detector(
        seed, bits, bits, signed=True, pad_code=pad_code, groups=2**seed, dilation=1 + seed % 3)
    assert_engine_exact(engine, graph, pixels(seed))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('vnni', [False, True])
def test_all_codes_at_their_largest(engine: str, vnni: bool) -> None:
    make = GraphMaker(np.random.default_rng(0))
    x = make.conv('input', 64, (0, 255), kernel=1, padding=0, bias_spread=1e3)
    extreme = np.full((8, 64, 3, 3), 127, np.int8)
    make.weights.update(
        all=extreme,
        half=np.where(np.arange(8).reshape(8, 1, 1, 1) % 2, 127, -128).astype(np.int8) *
        (extreme > 0))
    y = [make.conv(x, 8, (0, 255), weight=key) for key in ('all', 'half')]
    outputs = [make.conv(each, 8, None, weight=key) for each, key in ((x, 'all'), (x, 'half'))]
    graph = make.graph(tuple(outputs), tuple(make.apply(each) for each in y))
    if vnni and not _has_vnni():
        pytest.skip('the processor has no VNNI')
    assert_engine_exact(
        engine, graph, np.full((1, 3, 9, 11), 255, np.uint8), pixels(0, 9, 11), vnni=vnni)


def _has_vnni() -> bool:
    try:
        return 'vnni' in open('/proc/cpuinfo').read()
    except OSError:
        return False


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('size', [2**20, 2**26, 2**30])
def test_large_biases_and_sums(engine: str, size: int) -> None:
    """Sums that float32 rounds: beyond 2^24 in prediction maps, clipped in codes."""
    make = GraphMaker(np.random.default_rng(1))
    x = make.conv('input', 400, (0, 255), kernel=1, padding=0)
    make.weights['large'] = np.full((6, 400, 3, 3), 127, np.int8)
    make.weights['large'][3:, ::2] = -127
    outputs = [make.conv(x, 6, None, weight='large'), make.conv(x, 6, None, bits=4)]
    codes = [make.conv(x, 6, (0, 15), weight='large'), make.conv(x, 6, (-128, 127), bits=4)]
    for node in make.nodes[1:]:
        node.bias[:] += np.array([size, -size, size + 1, 3 - size, 1, 0])
    graph = make.graph(tuple(outputs), tuple(make.apply(each) for each in codes))
    assert_engine_exact(engine, graph, pixels(2, 7, 9))


@pytest.mark.parametrize('engine', ENGINES)
def test_requantization_of_every_code(engine: str) -> None:
    make = GraphMaker(np.random.default_rng(2), channels=1)
    make.weights['one'] = np.ones((1, 1, 1, 1), np.int8)
    make.conv('input', 1, (0, 255), kernel=1, padding=0, weight='one')
    make.conv('input', 1, (-128, 127), kernel=1, padding=0, weight='one')
    for node, bias in zip(make.nodes, (0, -128)):
        node.bias[:] = bias
        node.requantization.multiplier[:], node.requantization.shift[:] = 4097, 12
    factors = [1 / 2, 1 / 4, 1 / 16, 3 / 2, 3 / 8, 1 / 3, None, None, None, None]
    edges = []
    for source in ('conv0', 'conv1'):
        for bias in (0, 1, -3, 100, -300, 1000):
            for codes in ((0, 3), (0, 15), (-8, 7), (0, 255), (-128, 127)):
                factor = factors[len(edges) % len(factors)]
                edges.append(make.requantize(source, codes, bias, factor))
    graph = make.graph(tuple(make.apply(each) for each in edges))
    assert_engine_exact(engine, graph, np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16))


@pytest.mark.parametrize('engine', ENGINES)
def test_shapes_of_pools_and_upsampling(engine: str) -> None:
    make = GraphMaker(np.random.default_rng(3))
    x = make.conv('input', 4, (-8, 7))
    pooled = [make.max_pool(x, kernel, stride, padding, ceil)
              for kernel, stride, padding in ((3, 2, 1), (2, 2, 0), (3, 3, 0), (5, 2, 2))
              for ceil in (False, True)]  # yapf: disable
    up = [make.upsample(each, like=x) for each in pooled] + [make.upsample(x, factor=(3, 2))]
    graph = make.graph(tuple(make.apply(each) for each in pooled + up))
    for height, width in ((8, 12), (13, 17), (25, 10)):
        assert_engine_exact(engine, graph, pixels(0, height, width))


@pytest.mark.parametrize('engine', ENGINES)
def test_one_model_for_all_sizes(engine: str) -> None:
    need('onnx', engine)
    graph = random_detector(5)
    model = to_onnx(graph, 1, 1, dynamic=True, engine=engine)
    for shape in ((40, 56, 1), (33, 70, 2), (64, 32, 3)):
        image = pixels(1, *shape)
        for each in (model, with_edges(model)):
            assert_same(graph, run_engine(engine, each, image), reference(graph, image))


@pytest.mark.slow
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('family, bits', [('LIQ', 4), ('LSQ', 3), ('LSQPlus', 2), ('PACT', 8),
                                          ('DoReFa', 4)])  # yapf: disable
def test_a_lowered_detector_is_exact(engine: str, family: str, bits: int) -> None:
    need('onnx', engine)
    weight = {'LSQPlus': 'LSQ', 'PACT': 'DoReFa'}.get(family, family)
    model = TinyDetector(weights(bits, weight), inputs(bits, family))
    model = calibrated(model, random_image(0))
    graph = lower_detector(model, [normalized(random_image(0))])
    assert_engine_exact(engine, graph, random_image(1).numpy().astype(np.uint8))


@pytest.mark.parametrize('bits', [(4, 4), (8, 8)], ids=str)
def test_onnxruntime_runs_integers_up_to_the_predictions(bits: tuple[int, int], tmp_path) -> None:
    need('onnxruntime')
    import onnx
    graph = random_detector(0, *bits)
    run_onnxruntime(to_onnx(graph, HEIGHT, WIDTH), pixels(), save=tmp_path / 'optimized.onnx')
    nodes = onnx.load(tmp_path / 'optimized.onnx').graph.node
    count = {
        each: sum(node.op_type == each for node in nodes)
        for each in ('QLinearConv', 'ConvInteger', 'Conv', 'FusedConv', 'DequantizeLinear')
    }
    real = sum(map(len, graph.outputs))
    biased = sum(isinstance(node, Requantize) and node.bias > 0 for node in graph.nodes)
    assert count == dict(QLinearConv=len(list(graph.convs())) - real + biased, ConvInteger=real,
                         Conv=0, FusedConv=0, DequantizeLinear=0)  # yapf: disable


@pytest.mark.parametrize('bits', [(4, 4), (8, 8)], ids=str)
def test_openvino_runs_integer_convs(bits: tuple[int, int]) -> None:
    need('openvino')
    graph = random_detector(0, *bits)
    operators = runtime_operators(
        compile_openvino(to_onnx(graph, HEIGHT, WIDTH, engine='openvino')))
    convs = {key: number for key, number in operators.items() if 'Convolution' in key[0]}
    assert {precision for _, precision in convs} == {'u8'}
    assert sum(convs.values()) >= len(list(graph.convs()))


@pytest.mark.slow
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', ['RetinaNet', 'FCOS'])
def test_detectors_are_exact(engine: str, name: str) -> None:
    need('onnx', engine)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = calibrated(MODELS.build(model_cfg(name, bits=4)), random_image(0, 128, 128))
    graph = lower_detector(detector, [normalized(random_image(0, 128, 128, batch=1))])
    assert_engine_exact(engine, graph, random_image(1, 128, 160, batch=1).numpy().astype(np.uint8))


@pytest.mark.parametrize('engine', ENGINES)
def test_convs_left_in_float_are_close(engine: str) -> None:
    need('onnx', engine)
    detector = TinyDetector(weights(4), inputs(4))
    detector.a2.conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    detector.stem.conv = torch.nn.Conv2d(3, 8, 5, 2, 2, bias=False)
    images = random_image(0)
    graph = lower_detector(calibrated(detector, images), [normalized(images)], allow_float=True)
    assert any(isinstance(node, FloatConv) for node in graph.nodes)
    found = run_engine(engine, to_onnx(graph, 24, 32, 2, engine=engine),
                       images.numpy().astype(np.uint8))
    for expected, kind in zip(IntegerNetwork(graph)(images), ('cls_score', 'bbox_pred')):
        for level, real in enumerate(expected):
            error = np.abs(found[f'{kind}.{level}'] - real.numpy())
            # A number next to half a code may be rounded to the other side.
            assert np.median(error) <= 1e-4 * real.abs().max()
