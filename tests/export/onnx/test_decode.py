"""Detections of the decoding in a file against those of MMDetection's heads."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mmaqd.export.onnx.builder import Builder
from mmaqd.export.onnx.decode import add_detections
from mmaqd.export.onnx.settings import UnsupportedSetting, decoding_of
from mmaqd.registry import MODELS
from tests.helpers.detector import DETECTORS, model_cfg
from tests.helpers.engines import ENGINES, compile_openvino, need

SIZE = (64, 96)


def head_of(detector: str, **test_cfg: Any) -> Any:
    DefaultScope.get_instance('decode', scope_name='mmdet')
    cfg = model_cfg(detector)
    model = MODELS.build(cfg).eval()
    model.bbox_head.test_cfg = ConfigDict({
        **dict(
            nms_pre=60,
            min_bbox_size=0,
            score_thr=0.3,
            max_per_img=20,
            nms=dict(type='nms', iou_threshold=0.4)),
        **test_cfg
    })
    return model.bbox_head


def level_sizes(head: Any) -> list[tuple[int, int]]:
    return [
        tuple(-(-side // stride[0]) for side in SIZE) for stride in head.prior_generator.strides
    ]


def maps(head: Any, seed: int, batch: int = 1) -> list[list[np.ndarray]]:
    """Scores, boxes and, but for RetinaNet, centerness of random numbers without ties."""
    random = np.random.default_rng(seed)
    priors, retina = head.num_base_priors, not hasattr(head, 'centerness_on_reg') and not hasattr(
        head, 'atss_centerness')
    kinds = [head.cls_out_channels * priors, 4 * priors] + ([] if retina else [priors])
    result = []
    for kind, channels in enumerate(kinds):
        shapes = [(batch, channels, *size) for size in level_sizes(head)]
        values = [random.normal(size=shape).astype(np.float32) for shape in shapes]
        if kind == 1 and 'Distance' in type(head.bbox_coder).__name__:
            values = [np.abs(each) * 20 for each in values]
        result.append(values)
    return result


def decoded(head: Any,
            predictions: list[list[np.ndarray]],
            engine: str,
            opset: int = 17,
            dynamic: bool = False) -> tuple[np.ndarray, np.ndarray]:
    builder = Builder(opset, 8 if opset == 17 else 10)
    names = [[
        builder.input(f'kind{k}.{i}', np.float32,
                      ['batch', each.shape[1], f'h{i}', f'w{i}'] if dynamic else each.shape)
        for i, each in enumerate(kind)
    ] for k, kind in enumerate(predictions)]
    limits = builder.constant([SIZE[1], SIZE[0]] * 2, np.float32)
    model = builder.model(add_detections(builder, decoding_of(head), names, limits))
    feed = {f'kind{k}.{i}': each for k, kind in enumerate(predictions)
            for i, each in enumerate(kind)}  # yapf: disable
    if engine == 'openvino':
        results = compile_openvino(model, threads=2)(feed)
        return results['dets'], results['labels']
    import onnxruntime
    return tuple(
        onnxruntime.InferenceSession(model.SerializeToString(),
                                     providers=['CPUExecutionProvider']).run(['dets', 'labels'],
                                                                             feed))


def expected(head: Any, predictions: list[list[np.ndarray]]) -> list[tuple[np.ndarray, ...]]:
    batch = len(predictions[0][0])
    tensors = [[torch.from_numpy(each) for each in kind] for kind in predictions]
    metas = [dict(img_shape=SIZE, scale_factor=(1, 1))] * batch
    results = head.predict_by_feat(*tensors, batch_img_metas=metas, rescale=False)
    return [(each.bboxes.numpy(), each.scores.numpy(), each.labels.numpy()) for each in results]


def assert_detections(head: Any, predictions: list[list[np.ndarray]], engine: str,
                      **options: Any) -> None:
    dets, labels = decoded(head, predictions, engine, **options)
    assert labels.dtype == np.int64 and dets.shape[:2] == labels.shape
    for i, (boxes, scores, classes) in enumerate(expected(head, predictions)):
        count = len(scores)
        np.testing.assert_array_equal(labels[i, :count], classes)
        np.testing.assert_allclose(dets[i, :count, :4], boxes, atol=2e-3)
        np.testing.assert_allclose(dets[i, :count, 4], scores, atol=1e-6)
        assert (labels[i, count:] == -1).all() and (dets[i, count:] == 0).all()


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('batch', [1, 2])
def test_detections_are_those_of_the_head(detector: str, engine: str, batch: int) -> None:
    need('onnx', engine)
    head = head_of(detector)
    for seed in range(3):
        assert_detections(head, maps(head, seed, batch), engine)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('settings', [
    dict(score_thr=0.999), dict(score_thr=0.85), dict(max_per_img=3), dict(max_per_img=5000),
    dict(nms_pre=10**6), dict(min_bbox_size=-1), dict(min_bbox_size=0),
    dict(nms=dict(type='nms', iou_threshold=0.1))
], ids=str)  # yapf: disable
def test_settings(settings: dict, engine: str) -> None:
    need('onnx', engine)
    head = head_of('RetinaNet', **settings)
    assert_detections(head, maps(head, 5), engine)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('detector', DETECTORS)
def test_maps_of_any_number_and_size(detector: str, engine: str) -> None:
    need('onnx', engine)
    head = head_of(detector)
    assert_detections(head, maps(head, 4, batch=3), engine, dynamic=True)


@pytest.mark.parametrize('nms', [dict(score_threshold=0.6), dict(max_num=4)], ids=str)
def test_further_settings_of_nms(nms: dict) -> None:
    need('onnx', 'onnxruntime')
    head = head_of('ATSS', nms=dict(type='nms', iou_threshold=0.5, **nms))
    predictions = maps(head, 6)
    without = head_of('ATSS', nms=dict(type='nms', iou_threshold=0.5))
    assert len(expected(head, predictions)[0][1]) < len(expected(without, predictions)[0][1])
    assert_detections(head, predictions, 'onnxruntime')


def test_an_opset_with_packed_weights() -> None:
    need('onnx', 'onnxruntime')
    head = head_of('ATSS')
    assert_detections(head, maps(head, 1), 'onnxruntime', opset=21)


@pytest.mark.parametrize('settings,key', [
    (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), 'test_cfg.nms.type'),
    (dict(nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True)), 'class_agnostic'),
    (dict(nms=None), 'test_cfg.nms.type'),
    (dict(nms=dict(type='nms', iou_threshold=0)), 'test_cfg.nms.iou_threshold'),
    (dict(max_per_img=-1), 'test_cfg.max_per_img'),
    (dict(min_bbox_size=8), 'test_cfg.min_bbox_size'),
    (dict(nms_pre=0), 'test_cfg.nms_pre'),
    (dict(with_nms=False), 'test_cfg.with_nms'),
], ids=str)  # yapf: disable
def test_other_settings_are_refused(settings: dict, key: str) -> None:
    head = head_of('RetinaNet', **settings)
    with pytest.raises(UnsupportedSetting, match=f'{key}.*--raw'):
        decoding_of(head)


def test_other_heads_are_refused() -> None:
    head = head_of('ATSS')
    head.bbox_coder = object()
    with pytest.raises(UnsupportedSetting, match='bbox_coder.*object.*--raw'):
        decoding_of(head)
