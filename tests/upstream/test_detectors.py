"""What MMDetection's unit tests ask of a detector, asked of low-bit ones and of upstream's own.

Written anew from what they check (``tests/test_models/test_detectors`` of MMDetection 3.3): a
detector of one of its configs, made narrow, is built and takes at once what ``demo_mm_inputs``
gives, two images of different sizes, in each mode.
"""
from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from mmdet.engine.hooks import NumClassCheckHook
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmaqd.layers import QuantLayer
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS
from tests.helpers.detector import build
from tests.helpers.upstream import INPUT, WEIGHT, low_bit, tiny_resnet, upstream_model

IMAGES = [[3, 64, 64], [3, 61, 66]]
_MULTI_LEVEL = {
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
    'model.bbox_head.stacked_convs': 1,
    'model.bbox_head.norm_cfg': dict(type='mmaqd.MultiLevelBN', num_levels=5),
}
_RPN = {'model.rpn_head.in_channels': 16, 'model.rpn_head.feat_channels': 16}
_ROI = {
    **_RPN,
    'model.rpn_head.num_classes': 2,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
}
_MASK = {
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
}
_CENTERNET = {
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.num_deconv_filters': [32, 16, 8],
    'model.bbox_head.in_channels': 8,
    'model.bbox_head.feat_channels': 8,
}
_YOLOX = {
    'model.data_preprocessor.batch_augments': None,
    'model.backbone.widen_factor': 0.125,
    'model.neck.in_channels': [32, 64, 128],
    'model.neck.out_channels': 32,
    'model.bbox_head.in_channels': 32,
    'model.bbox_head.feat_channels': 32,
}


class Case(NamedTuple):
    """A detector of a config, what makes it narrow, and its parts that have a name."""

    config: str
    changes: dict
    parts: tuple[str, ...] = ('backbone', 'neck', 'bbox_head')
    rois: bool = False


def shared(config: str) -> Case:
    """A detector whose head works on all levels."""
    return Case(config, {**tiny_resnet(), **_MULTI_LEVEL})


_TWO_STAGES = ('backbone', 'neck', 'rpn_head', 'roi_head.bbox_head')
CASES = {
    'RetinaNet': shared('retinanet/retinanet_r18_fpn_1x_coco.py'),
    'FCOS': shared('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'),
    'ATSS': shared('atss/atss_r50_fpn_1x_coco.py'),
    'GFL': shared('gfl/gfl_r50_fpn_1x_coco.py'),
    'FSAF': shared('fsaf/fsaf_r50_fpn_1x_coco.py'),
    'LD': shared('ld/ld_r18-gflv1-r101_fpn_1x_coco.py'),
    'CenterNet': Case('centernet/centernet_r18_8xb16-crop512-140e_coco.py', _CENTERNET),
    'YOLOX': Case('yolox/yolox_tiny_8xb8-300e_coco.py', _YOLOX),
    'YOLOv3': Case('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', {}),
    'RPN': Case('rpn/rpn_r50_fpn_1x_coco.py',
                {**tiny_resnet(), **_RPN, 'model.rpn_head.num_classes': 2}),
    'Faster R-CNN': Case('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', tiny_resnet(**_ROI),
                         _TWO_STAGES, True),
    'Mask R-CNN': Case('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', tiny_resnet(**_ROI, **_MASK),
                       (*_TWO_STAGES, 'roi_head.mask_head'), True),
}  # yapf: disable
KINDS = ('upstream', 'low-bit', 'calibrated')
_CALIBRATED = ('RetinaNet', 'FCOS', 'ATSS', 'GFL', 'Faster R-CNN')
each_case = pytest.mark.parametrize('name, kind', [
    (name, kind) for name in CASES for kind in KINDS
    if kind != 'calibrated' or name in _CALIBRATED])  # yapf: disable
each_kind = pytest.mark.parametrize('kind', KINDS)


def narrow(name: str) -> ConfigDict:
    """The model of the config of a case."""
    return upstream_model(CASES[name].config, CASES[name].changes)


def config(name: str, kind: str) -> ConfigDict:
    """Config of the float detector, or of the low-bit one; shared heads become multi-level."""
    model = narrow(name)
    if name == 'LD':
        teacher = narrow('GFL')
        teacher.bbox_head.norm_cfg = dict(type='BN')
        model.update(teacher_config=dict(model=teacher), teacher_ckpt=None)
    if kind == 'upstream':
        if 'bbox_head' in model and 'norm_cfg' in model.bbox_head:
            model.bbox_head.norm_cfg = dict(type='BN')
        return model
    if model.get('bbox_head', {}).get('norm_cfg', {}).get('type') == 'mmaqd.MultiLevelBN':
        model.bbox_head.update(type='mmaqd.MultiLevelHead', head=model.bbox_head.type)
    start = dict(start='constant') if kind == 'low-bit' else {}
    return low_bit(
        model,
        weight_quantizer=dict(WEIGHT, normalize=False, **start),
        input_quantizer=dict(INPUT, **start))


@cache
def made(name: str, kind: str) -> nn.Module:
    """Build a detector with the weights that upstream's ``init_weights`` gives it."""
    model = build(config(name, kind))
    torch.manual_seed(0)
    model.init_weights()
    if kind == 'calibrated':
        calibrate(model, [inputs(name)])
    return model


def make(name: str, kind: str, mode: bool = False) -> nn.Module:
    """A detector of its own for a test, in evaluation or training mode."""
    model = deepcopy(made(name, kind))
    model.train(mode)
    return model


def inputs(name: str, **changes: Any) -> dict:
    """Upstream's two images, in lists as a data loader gives them."""
    return demo_mm_inputs(2, **{'image_shapes': IMAGES, 'with_mask': 'Mask' in name, **changes})


def shapes(value: Any) -> Any:
    """What is in nested outputs, with the shape in place of each tensor."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return [shapes(each) for each in value] if isinstance(value, (list, tuple)) else type(value)


@cache
def upstream_shapes(name: str) -> Any:
    model = make(name, 'upstream')
    torch.manual_seed(0)
    with torch.no_grad():
        return shapes(model(**model.data_preprocessor(inputs(name)), mode='tensor'))


@pytest.mark.slow
@each_case
def test_init(name, kind):
    model = make(name, kind)
    assert isinstance(model, MODELS.get(narrow(name).type))
    assert all(model.get_submodule(part) is not None for part in CASES[name].parts)
    assert model.with_neck and model.with_bbox and model.with_mask == ('Mask' in name)
    if 'rpn_head' in narrow(name):
        # It knows objects from no objects, whatever the config says.
        proposals = model.rpn_head if CASES[name].rois else model.bbox_head
        assert proposals.num_classes == 1
    assert any(isinstance(module, QuantLayer) for module in model.modules()) == (kind != 'upstream')


@pytest.mark.slow
@each_case
def test_loss_mode(name, kind):
    model = make(name, kind, mode=True)
    for num_boxes in (None, [0, 0], [2, 0]):
        data = model.data_preprocessor(inputs(name, num_items=num_boxes), True)
        losses = model.forward(**data, mode='loss')
        assert isinstance(losses, dict)
        total, logged = model.parse_losses(losses)
        assert total.isfinite() and total > 0
        assert {key for key in logged if 'loss' in key} > {'loss'}
        model.zero_grad()
        total.backward()
        found = [value.grad for value in model.parameters() if value.grad is not None]
        assert found and all(gradient.isfinite().all() for gradient in found)


@each_case
@torch.no_grad()
def test_predict_mode(name, kind):
    model = make(name, kind)
    data = model.data_preprocessor(inputs(name), False)
    results = model.forward(**data, mode='predict')
    assert len(results) == 2
    for result in results:
        assert isinstance(result, DetDataSample)
        found = result.pred_instances
        assert found.bboxes.shape == (len(found), 4) and found.scores.shape == (len(found), )
        assert found.bboxes.isfinite().all() and found.scores.isfinite().all()
        assert ('masks' in found) == ('Mask' in name)


@each_case
@torch.no_grad()
def test_tensor_mode(name, kind):
    model = make(name, kind)
    data = model.data_preprocessor(inputs(name), False)
    torch.manual_seed(0)
    outputs = model.forward(**data, mode='tensor')
    assert isinstance(outputs, tuple)
    if not CASES[name].rois:  # There as many as there are proposals.
        assert shapes(outputs) == upstream_shapes(name)
        alone = model(data['inputs'], mode='tensor')
        assert shapes(alone) == shapes(outputs)


@each_kind
@pytest.mark.parametrize('name', ['RetinaNet', 'FCOS', 'Faster R-CNN'])
class TestWaysToCall:

    def test_lists_and_a_batch(self, name, kind):
        model = make(name, kind)
        same_size = dict(image_shapes=tuple(IMAGES[0]))
        lists, batch = inputs(name, **same_size), inputs(name, **same_size)
        batch['inputs'] = torch.stack(batch['inputs'])
        results = [model.test_step(each) for each in (lists, batch)]
        for one, other in zip(*results):
            assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)

    def test_a_tuple_instead_of_names(self, name, kind):
        model = make(name, kind)
        data = model.data_preprocessor(inputs(name))
        torch.manual_seed(0)
        named = model(**data, mode='predict')
        torch.manual_seed(0)
        in_order = model._run_forward(tuple(data.values()), mode='predict')
        for one, other in zip(named, in_order):
            assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)

    def test_a_single_image(self, name, kind):
        model = make(name, kind)
        results = model.val_step(demo_mm_inputs(1, IMAGES[:1]))
        assert len(results) == 1 and isinstance(results[0], DetDataSample)

    def test_a_step_of_training(self, name, kind):
        model = make(name, kind, mode=True)
        before = {key: value.clone() for key, value in model.named_parameters()}
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 1e-3))
        logged = model.train_step(inputs(name), wrapper)
        assert logged['loss'].isfinite()
        changed = {key for key, value in model.named_parameters()
                   if not torch.equal(value, before[key])}  # yapf: disable
        assert changed >= {'backbone.conv1.weight', 'neck.fpn_convs.0.conv.weight'}

    def test_an_unknown_mode_is_refused(self, name, kind):
        model = make(name, kind)
        with pytest.raises(RuntimeError, match='Invalid mode "bogus"'):
            model.forward(**model.data_preprocessor(inputs(name)), mode='bogus')


@each_kind
def test_the_head_of_rpn_becomes_that_of_a_detector_in_two_stages(kind):
    proposals, model = make('RPN', kind), make('Faster R-CNN', kind)
    for value in proposals.parameters():
        value.data.add_(1)
    loaded = model.load_state_dict(proposals.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith('roi_head.') for key in loaded.missing_keys)
    state = model.state_dict()
    for key, value in proposals.state_dict().items():
        assert torch.equal(value, state[key.replace('bbox_head.', 'rpn_head.')]), key


@each_kind
@pytest.mark.parametrize('name', ['RetinaNet', 'Faster R-CNN'])
def test_augmented_images_are_merged_into_one_result(name, kind):
    tta = build(
        dict(
            type='DetTTAModel',
            module=config(name, kind),
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=7)))
    assert isinstance(tta.module, MODELS.get(narrow(name).type))
    tta.module = make(name, kind)
    head = tta.module.roi_head if CASES[name].rois else tta.module.bbox_head
    head.test_cfg.score_thr = 0.
    images, samples = [], []
    for index in range(4):
        size = 64 + 16 * index
        images.append(torch.rand(1, 3, size, size) * 255)
        samples.append([
            DetDataSample(
                metainfo=dict(
                    ori_shape=(64, 64),
                    img_shape=(size, size),
                    scale_factor=(size / 64, ) * 2,
                    flip=index % 2 == 1,
                    flip_direction='horizontal'))
        ])
    results = tta.test_step(dict(inputs=images, data_samples=samples))
    assert len(results) == 1 and len(results[0].pred_instances) == 7
    assert results[0].pred_instances.bboxes.isfinite().all()


@each_case
def test_the_number_of_classes_is_checked(name, kind):
    runner = SimpleNamespace(model=make(name, kind))
    right = 1 if name == 'RPN' else 80
    for num_classes, context in ((right, nullcontext()), (3, pytest.raises(AssertionError))):
        dataset = SimpleNamespace(metainfo=dict(classes=tuple(map(str, range(num_classes)))))
        runner.train_dataloader = SimpleNamespace(dataset=dataset)
        with context:
            NumClassCheckHook().before_train_epoch(runner)
