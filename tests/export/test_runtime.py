"""The runtime against MMDetection's own transforms, in both engines; what it refuses."""
from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Resize
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample

from mmaqd.export.onnx.builder import Builder
from mmaqd.export.runtime import (DetectError, Detector, draw, openvino_options, pattern_image,
                                  read_recipe, to_json)
from tests.helpers.engines import ENGINES, need
from tests.helpers.exported import BOXES, LABELS, SCORES, exported_file, recipe

FOUND = 3  # used rows of BOXES


@pytest.fixture(autouse=True)
def _packages() -> None:
    need('onnx', 'onnxruntime')


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def spied(detector: Detector) -> list[np.ndarray]:
    """What the engine is given from now on."""
    seen, run = [], detector.run

    def spy(images: np.ndarray) -> Any:
        seen.append(images.copy())
        return run(images)

    detector.run = spy
    return seen


def reference(image: np.ndarray, meta: dict[str, Any]) -> tuple[np.ndarray, tuple]:
    """The padded input by MMDetection, and its scale factors (width, height)."""
    resize = meta['resize']
    results = Resize(tuple(resize['scale']), keep_ratio=resize['keep_ratio'])({'img': image})
    sample = DetDataSample(metainfo=dict(img_shape=results['img_shape']))
    std = (1, 1, 1)
    tensor = torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))
    mean = meta['pad']['value']
    prepare = DetDataPreprocessor(
        mean, std, pad_size_divisor=meta['pad']['divisor'], bgr_to_rgb=meta['color'] == 'rgb')
    batch = prepare(dict(inputs=[tensor], data_samples=[sample]))['inputs'][0]
    return batch.numpy() + np.array(mean)[:, None, None], results['scale_factor']


@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('color', ['rgb', 'bgr'])
@pytest.mark.parametrize(
    'size', [(48, 64), (30, 61), (97, 200), (481, 640), (7, 9), (1, 64)], ids=str)
def test_images_are_prepared_as_mmdetection_does(tmp_path: Path, keep_ratio: bool, color: str,
                                                 size: tuple[int, int]) -> None:
    meta = recipe(color=color, resize={'scale': [64, 48], 'keep_ratio': keep_ratio}, dynamic=True)
    detector = Detector(exported_file(tmp_path / 'model.onnx', meta))
    seen = spied(detector)
    image = picture(*size)
    result, = detector([image])
    expected, factors = reference(image, meta)
    np.testing.assert_array_equal(seen[0][0], expected)
    boxes = torch.from_numpy(BOXES[:FOUND]) / torch.tensor(factors).repeat(2)
    boxes = boxes.clamp(min=0).minimum(torch.tensor(size[::-1] * 2))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    torch.testing.assert_close(torch.from_numpy(result['boxes']), boxes[kept].float())


def test_fixed_files_are_padded_up_to_their_size(tmp_path: Path) -> None:
    detector = Detector(exported_file(tmp_path / 'model.onnx'))
    seen = spied(detector)
    image = picture(20, 64)
    detector([image])
    assert seen[0].shape == (1, 3, 48, 64)
    np.testing.assert_array_equal(seen[0][0, :, :20], image[..., ::-1].transpose(2, 0, 1))
    padding = seen[0][0, :, 20:]
    np.testing.assert_array_equal(
        padding, np.broadcast_to(np.array([[[124]], [[116]], [[104]]]), padding.shape))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('dynamic', [False, True])
def test_detections_by_hand(tmp_path: Path, engine: str, dynamic: bool) -> None:
    need(engine)
    path = exported_file(tmp_path / 'model.onnx', recipe(engine=engine, dynamic=dynamic))
    result, = Detector(path, threads=1)([picture(96, 128)])
    np.testing.assert_array_equal(result['boxes'], 2 * BOXES[:FOUND])
    np.testing.assert_array_equal(result['scores'], SCORES[:FOUND])
    np.testing.assert_array_equal(result['labels'], LABELS[:FOUND])
    assert result['names'] == ['dog', 'cat', 'dog']


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('count', [0, 1, 3, 4, 5])
def test_batches(tmp_path: Path, engine: str, count: int) -> None:
    need(engine)
    meta = recipe(engine=engine, batch=3)
    detector = Detector(exported_file(tmp_path / 'model.onnx', meta, brightness=1 / 1024))
    seen = spied(detector)
    shades = [10 * (each + 1) for each in range(count)]
    results = detector([np.full((48, 64, 3), shade, np.uint8) for shade in shades])
    assert [each.shape[0] for each in seen] == [3] * -(-count // 3)
    found = [result['scores'][0] for result in results]
    np.testing.assert_allclose(found, [.75 + shade / 1024 for shade in shades], rtol=1e-6)


def test_boxes_are_clipped_and_those_of_the_padding_left_out(tmp_path: Path) -> None:
    result, = Detector(exported_file(tmp_path / 'model.onnx'))([picture(30, 64)])
    np.testing.assert_array_equal(result['boxes'], [[8, 16, 24, 30], [0, 0, 64, 30]])
    assert result['names'] == ['dog', 'cat']


def test_score_threshold(tmp_path: Path) -> None:
    detector = Detector(exported_file(tmp_path / 'model.onnx'))
    counts = [len(detector([picture(48, 64)], thr)[0]['scores']) for thr in (0, .45, .5, .6, .8)]
    assert counts == [3, 2, 2, 1, 0]


def test_drawing_and_json(tmp_path: Path) -> None:
    image = picture(48, 64)
    before = image.copy()
    result, = Detector(exported_file(tmp_path / 'model.onnx'))([image])
    drawn = draw(image, result)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape and len(np.unique(drawn[30, 9:24:15])) <= 6
    assert (drawn[40, 8:25] == drawn[40, 8]).all(), 'the bottom edge of the first box'
    assert (drawn != image).any()
    assert json.loads(json.dumps(to_json(result))) == {
        'boxes': BOXES[:FOUND].tolist(),
        'scores': pytest.approx([.75, .5, .4]),
        'labels': [1, 0, 1],
        'names': ['dog', 'cat', 'dog']
    }
    nothing, = Detector(tmp_path / 'model.onnx')([image], score_thr=1)
    np.testing.assert_array_equal(draw(image, nothing), image)


def with_self_test(path: Path, engine: str, **changes: Any) -> Path:
    """A file with right self-test, but for the changes; its rows are in another order."""
    height, width = 48, 64
    mean = np.mean([[[(85 * c + 3 * y + 7 * x + (x * y >> 3)) % 256 for x in range(width)]
                     for y in range(height)] for c in range(3)])
    rows = [[*box, score + mean / 1024] for box, score in zip(BOXES[:FOUND].tolist(), SCORES)]
    stored = {'dets': rows[::-1], 'labels': LABELS[:FOUND][::-1].tolist()}
    stored.update(changes)
    meta = recipe(engine=engine, self_test=stored)
    return exported_file(path / 'model.onnx', meta, brightness=1 / 1024)


@pytest.mark.parametrize('engine', ENGINES)
def test_self_test_passes(tmp_path: Path, engine: str) -> None:
    need(engine)
    said = Detector(with_self_test(tmp_path, engine)).self_test()
    assert said == f'Self-test passed in {engine}: 3 detections as exported.'


def rows(**changes: Any) -> list[list[float]]:
    mean = pattern_image(48, 64).mean()
    right = [[*box, score + mean / 1024] for box, score in zip(BOXES[:FOUND].tolist(), SCORES)]
    for place, amount in changes.items():
        row, column = map(int, re.findall(r'\d', place))
        right[row][column] += amount
    return right


@pytest.mark.parametrize('changes', [
    dict(dets=rows(r0c1=.02), labels=[1, 0, 1]),
    dict(dets=rows(r2c4=.002), labels=[1, 0, 1]),
    dict(dets=rows(r1c4=float('nan')), labels=[1, 0, 1]),
    dict(dets=rows(), labels=[1, 0, 0]),
    dict(dets=rows()[:2], labels=[1, 0]),
    dict(dets=rows()[:2] + rows()[1:2], labels=[1, 0, 0]),
    dict(dets=[], labels=[]),
], ids=['box', 'score', 'nan', 'label', 'fewer', 'twice', 'none'])  # yapf: disable
def test_self_test_fails(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(DetectError, match='Self-test failed in onnxruntime'):
        Detector(with_self_test(tmp_path, 'onnxruntime', **changes)).self_test()


def test_self_test_tolerates_another_machine(tmp_path: Path) -> None:
    near = dict(dets=rows(r0c1=.008, r1c4=-.0008), labels=[1, 0, 1])
    assert 'passed' in Detector(with_self_test(tmp_path, 'onnxruntime', **near)).self_test()


@pytest.mark.parametrize('stored', [None, {}, {'dets': [[1, 2]], 'labels': [0]}])
def test_self_test_that_is_missing(tmp_path: Path, stored: Any) -> None:
    path = exported_file(tmp_path / 'model.onnx', recipe(self_test=stored))
    with pytest.raises(DetectError, match='has no self-test'):
        Detector(path).self_test()


GOOD = picture(48, 64)


@pytest.mark.parametrize('image, words', [
    (None, 'An image is NoneType, expected an H x W x 3'),
    (GOOD[..., 0], r'is grey, of shape \(48, 64\)'),
    (GOOD[..., :1], r'shape \(48, 64, 1\)'),
    (np.concatenate([GOOD, GOOD[..., :1]], 2), 'is with alpha, of shape'),
    (GOOD.astype(np.uint16), 'is uint16, expected uint8'),
    (GOOD.astype(np.float32), 'is float32, expected uint8'),
    (GOOD[:0], r'shape \(0, 64, 3\)'),
    (picture(1, 300), '300 x 1 pixels .* resized to 64 x 0, it is too thin'),
    (picture(300, 1), '1 x 300 pixels .* resized to 0 x 64, it is too thin'),
    (picture(64, 48),
     'resized to 48 x 64, larger than the input of 64 x 48: export with a larger --size'),
])
def test_images_that_are_refused(tmp_path: Path, image: Any, words: str) -> None:
    detector = Detector(exported_file(tmp_path / 'model.onnx'))
    with pytest.raises(DetectError, match=words):
        detector([GOOD, image])


def test_images_are_shrunk_to_fit_if_asked(tmp_path: Path) -> None:
    detector = Detector(exported_file(tmp_path / 'model.onnx'), fit=True)
    seen = spied(detector)
    result, = detector([np.full((128, 96, 3), 7, np.uint8)])
    assert (seen[0][0, :, :48, :36] == 7).all() and (seen[0][0, 0, :, 36:] == 124).all()
    np.testing.assert_allclose(result['boxes'][0], np.array([8, 16, 24, 40]) * 128 / 48, rtol=1e-6)


def test_larger_images_are_resized(tmp_path: Path) -> None:
    result, = Detector(exported_file(tmp_path / 'model.onnx'))([picture(480, 640)])
    np.testing.assert_array_equal(result['boxes'][0], 10 * BOXES[0])


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in recipe().items() if name != key}


@pytest.mark.parametrize('meta, words', [
    (recipe(raw=True), 'exported with --raw'),
    (recipe(version=2), 'written by a newer mmaqd'),
    (recipe(version='1'), 'is damaged'),
    (recipe(color='grey'), 'is damaged .*color'),
    (recipe(pad={'divisor': 32, 'value': [1, 2, 300]}), 'is damaged .*pad value'),
    (recipe(size=[48, 64, 3]), 'is damaged'),
    (recipe(engine='os.system'), 'is damaged .*engine'),
    (without('resize'), 'is damaged .*resize'),
    ([], 'is damaged'),
    (None, 'is damaged'),
], ids=str)  # yapf: disable
def test_metadata_that_is_refused(tmp_path: Path, meta: Any, words: str) -> None:
    path = exported_file(tmp_path / 'model.onnx')
    _set_metadata(path, json.dumps(meta))
    with pytest.raises(DetectError, match=words):
        Detector(path)


def _set_metadata(path: Path, text: str) -> None:
    import onnx
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {'before': 'x', 'mmaqd': text, 'after': 'y'})
    onnx.save(model, path)


def test_metadata_is_read_wherever_it_is(tmp_path: Path) -> None:
    path = exported_file(tmp_path / 'model.onnx')
    _set_metadata(path, json.dumps(recipe(classes=['Katze, größer', 'Hund'])))
    assert read_recipe(path) == recipe(classes=['Katze, größer', 'Hund'])
    _set_metadata(path, '{"version": 1')
    with pytest.raises(DetectError, match='is damaged .*JSONDecodeError'):
        read_recipe(path)
    _set_metadata(path, '[' * 100000)
    with pytest.raises(DetectError, match='is damaged'):
        read_recipe(path)


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    build = Builder()
    build.input('input', np.float32, [1])
    build.node('Neg', ['input'], 'output')
    foreign = tmp_path / 'foreign.onnx'
    foreign.write_bytes(build.model(['output']).SerializeToString())
    with pytest.raises(DetectError, match="has no metadata 'mmaqd'"):
        Detector(foreign)
    with pytest.raises(DetectError, match="can't be read .No such file"):
        Detector(tmp_path / 'none.onnx')
    with pytest.raises(DetectError, match="can't be read .Is a directory"):
        Detector(tmp_path)


@pytest.mark.parametrize('data', [b'', b'PK\x03\x04 a zip', b'\x89PNG\r\n', b'text', b'\x08\x08',
                                  b'\xff' * 64, bytes(64)], ids=repr)  # yapf: disable
def test_files_that_are_no_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / 'model.onnx'
    path.write_bytes(data)
    with pytest.raises(DetectError, match='is no ONNX file'):
        Detector(path)


def test_cut_and_spoiled_files_are_refused_or_read(tmp_path: Path) -> None:
    whole = exported_file(tmp_path / 'model.onnx').read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / 'spoiled.onnx'
    for _ in range(300):
        data = bytearray(whole[:rng.integers(1, len(whole) + 1)])
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_recipe(path)
        except DetectError:
            pass
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DetectError):
            Detector(path)


def test_input_that_contradicts_the_metadata(tmp_path: Path) -> None:
    path = exported_file(tmp_path / 'model.onnx')
    _set_metadata(path, json.dumps(recipe(size=[64, 64])))
    with pytest.raises(
            DetectError, match=r'is \[1, 3, 48, 64\], its metadata says \[1, 3, 64, 64\]'):
        Detector(path)


def test_labels_without_a_class(tmp_path: Path) -> None:
    detector = Detector(exported_file(tmp_path / 'model.onnx', recipe(classes=['cat'])))
    with pytest.raises(DetectError, match='label 1, but its metadata names 1 classes'):
        detector([GOOD])


@pytest.mark.parametrize('engine', ENGINES)
def test_missing_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    path = exported_file(tmp_path / 'model.onnx', recipe(engine=engine))
    with pytest.raises(DetectError, match=f'{engine} is not installed: pip install {engine}'):
        Detector(path)


@pytest.mark.parametrize('engine', ENGINES)
def test_graph_that_an_engine_cannot_load(tmp_path: Path, engine: str) -> None:
    need(engine)
    import onnx
    path = exported_file(tmp_path / 'model.onnx', recipe(engine=engine))
    model = onnx.load(path)
    broken = copy.deepcopy(model.graph.node[0])
    broken.op_type, broken.output[0] = 'NoSuchOperator', 'other'
    model.graph.node.append(broken)
    model.graph.output.append(onnx.helper.make_tensor_value_info('other', 1, None))
    onnx.save(model, path)
    with pytest.raises(DetectError, match=f"{engine} can't load .*model.onnx: ."):
        Detector(path)


def test_options_that_are_refused(tmp_path: Path) -> None:
    path = exported_file(tmp_path / 'model.onnx')
    with pytest.raises(DetectError, match="engine is 'tensorrt', expected one of"):
        Detector(path, 'tensorrt')
    with pytest.raises(DetectError, match='threads is 0'):
        Detector(path, threads=0)
    need('openvino')
    with pytest.warns(UserWarning, match='is for onnxruntime: export with --engine openvino'):
        Detector(path, 'openvino')


def test_openvino_keeps_floats_in_float32(tmp_path: Path) -> None:
    need('openvino')
    import openvino
    core = openvino.Core()
    path = exported_file(tmp_path / 'model.onnx', recipe(engine='openvino'))
    compiled = core.compile_model(core.read_model(path), 'CPU', openvino_options(threads=1))
    assert compiled.get_property('INFERENCE_PRECISION_HINT') == openvino.Type.f32
    assert compiled.get_property('INFERENCE_NUM_THREADS') == 1
