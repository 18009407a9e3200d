"""Tiny detectors: a few thousand weights, so that a training step takes a blink."""
from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS

LEVELS = 5
CHANNELS = 16
NUM_CLASSES = 3
PREDICTION_CONVS = dict(
    RetinaNet=('retina_cls', 'retina_reg'),
    FCOS=('conv_cls', 'conv_reg', 'conv_centerness'),
    ATSS=('atss_cls', 'atss_reg', 'atss_centerness'))
DETECTORS = tuple(PREDICTION_CONVS)
MULTI_LEVEL_BN = dict(type='mmaqd.MultiLevelBN', num_levels=LEVELS)


def model_cfg(detector: str = 'RetinaNet', bits: int | None = None, **head: Any) -> dict:
    """Config of a detector with the Full-BN structure, float or with ``bits`` bits."""
    norm = dict(type='BN', requires_grad=True)
    cfg = dict(
        type=detector,
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[124, 116, 104],
            std=[1, 1, 1],
            bgr_to_rgb=True,
            pad_size_divisor=32),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=8,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            norm_cfg=norm,
            norm_eval=False),
        neck=dict(
            type='FPN',
            in_channels=[8, 16, 32, 64],
            out_channels=CHANNELS,
            start_level=1,
            add_extra_convs='on_output',
            num_outs=LEVELS,
            norm_cfg=norm,
            act_cfg=dict(type='ReLU')),
        bbox_head=head_cfg(detector, **head),
        train_cfg=_train_cfg(detector),
        test_cfg=dict(
            nms_pre=100,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.6),
            max_per_img=20))
    if bits is not None:
        cfg.update(
            type='mmaqd.QuantizedDetector',
            detector=detector,
            quantization=quantization_cfg(detector, bits))
    return deepcopy(cfg)  # nothing is shared, so a test may change any part


def head_cfg(detector: str, type_prefix: str = 'mmaqd.AQD', **changes: Any) -> dict:
    """Config of the dense head; ``type_prefix=''`` takes the upstream head."""
    heads = dict(RetinaNet=_retina_head, FCOS=_fcos_head, ATSS=_atss_head)
    cfg = dict(
        num_classes=NUM_CLASSES,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=1,
        norm_cfg=MULTI_LEVEL_BN,
        **heads[detector]())
    cfg['type'] = type_prefix + cfg['type']
    return deepcopy({**cfg, **changes})


def quantization_cfg(detector: str, bits: int) -> dict:
    """The block of our low-bit configs: first conv and prediction convs at 8 bits."""
    return dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=bits),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=bits),
        rules=[
            dict(
                pattern='backbone.conv1',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=None)
        ] + [
            dict(
                pattern=f'bbox_head.{name}',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=dict(bit_width=8)) for name in PREDICTION_CONVS[detector]
        ])


def build(cfg: dict, seed: int = 0, scope: str | None = 'mmdet') -> nn.Module:
    """Build a model of the config in a default scope, with torch's initial weights."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(ConfigDict(deepcopy(cfg)))


def build_calibrated(detector: str = 'RetinaNet', bits: int = 4, seed: int = 0) -> nn.Module:
    """A low-bit detector that is ready for training and testing."""
    model = build(model_cfg(detector, bits), seed)
    calibrate(model, [make_batch()])
    return model


def make_batch(boxes: bool = True, num_images: int = 2, size: int = 64) -> dict:
    """A batch as a data loader gives it: 8-bit images with one box each, or with none."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(
        0, 256, (num_images, 3, size, size), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[_sample(boxes, size) for _ in images])


def loss(model: nn.Module, batch: dict) -> torch.Tensor:
    """The sum of all losses of a batch."""
    data = model.data_preprocessor(batch, training=True)
    return model.parse_losses(model(**data, mode='loss'))[0]


def raw_outputs(model: nn.Module, batch: dict) -> list[torch.Tensor]:
    """The maps that the head predicts, without post-processing, level by level."""
    data = model.data_preprocessor(batch)
    with torch.no_grad():
        return [each for kind in model(**data, mode='tensor') for each in kind]


def _sample(boxes: bool, size: int) -> DetDataSample:
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0), img_id=0))
    given = torch.tensor([[4., 6., 40., 44.]]) if boxes else torch.zeros(0, 4)
    sample.gt_instances = InstanceData(
        bboxes=given, labels=torch.ones(len(given), dtype=torch.long))
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


def _focal_loss() -> dict:
    return dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)


def _centerness_loss() -> dict:
    return dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)


def _box_coder(stds: tuple[float, ...]) -> dict:
    return dict(type='DeltaXYWHBBoxCoder', target_means=(0., 0., 0., 0.), target_stds=stds)


def _retina_head() -> dict:
    return dict(
        type='RetinaHead',
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=2,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=_box_coder((1., 1., 1., 1.)),
        loss_cls=_focal_loss(),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0))


def _fcos_head() -> dict:
    return dict(
        type='FCOSHead',
        strides=[8, 16, 32, 64, 128],
        regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 128), (128, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias='auto',
        loss_cls=_focal_loss(),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=_centerness_loss())


def _atss_head() -> dict:
    return dict(
        type='ATSSHead',
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=_box_coder((.1, .1, .2, .2)),
        loss_cls=_focal_loss(),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=_centerness_loss())


def _train_cfg(detector: str) -> dict:
    if detector == 'RetinaNet':
        assigner = dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1)
        return dict(
            assigner=assigner,
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False)
    if detector == 'ATSS':
        return dict(
            assigner=dict(type='ATSSAssigner', topk=9),
            allowed_border=-1,
            pos_weight=-1,
            debug=False)
    return dict()
