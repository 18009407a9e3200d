"""Heads of MMDetection's own configs, narrow, as they are and as this package extends them."""
from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmaqd.conversion import prepare
from tests.helpers.detector import build
from tests.helpers.upstream import upstream_model

SIZE = 384  # A deformable conv takes no map that is smaller than its kernel, 3 x 3 at stride 128.
SCALE = 2.
CLASSES = 4
CHANNELS = 8
KINDS = ('upstream', 'ours', 'multi-level', 'low-bit')
_GN = dict(type='GN', num_groups=2)
_BN = dict(type='BN')
_REGISTERED = dict(RetinaHead='mmaqd.AQDRetinaHead', FCOSHead='mmaqd.AQDFCOSHead',
                   ATSSHead='mmaqd.AQDATSSHead')  # yapf: disable
# Upstream reads the weight of this conv without calling it.
_IN_FLOAT = [dict(pattern='*.reduction_conv.conv', weight_quantizer=None, input_quantizer=None)]


class Head(NamedTuple):
    """What upstream's test of a head knows.

    Attributes:
        config: Config of MMDetection with the head.
        background: Losses that are positive without a box too.
        objects: Losses that are zero without a box.
        channels: Of each kind of output in training.
        norm: Of the control; multi-level BN takes its place.
        shared: The levels share their layers.
        metrics: What else is among the losses.
        changes: Of the config of the head.
    """

    config: str
    background: tuple[str, ...]
    objects: tuple[str, ...]
    channels: tuple
    norm: dict | None = _GN
    shared: bool = True
    metrics: tuple[str, ...] = ()
    changes: dict = {}


_CLS, _BBOX = ('loss_cls', ), ('loss_bbox', )
HEADS = dict(
    RetinaHead=Head('retinanet/retinanet_r18_fpn_1x_coco.py', _CLS, _BBOX, (36, 36), None),
    FCOSHead=Head('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', _CLS,
                  (*_BBOX, 'loss_centerness'), (4, 4, 1)),
    ATSSHead=Head('atss/atss_r50_fpn_1x_coco.py', _CLS, (*_BBOX, 'loss_centerness'), (4, 4, 1)),
    GFLHead=Head('gfl/gfl_r50_fpn_1x_coco.py', _CLS, (*_BBOX, 'loss_dfl'), (4, 68)),
    VFNetHead=Head('vfnet/vfnet_r50_fpn_1x_coco.py', _CLS, (*_BBOX, 'loss_bbox_rf'), (4, 4, 4)),
    TOODHead=Head('tood/tood_r50_fpn_1x_coco.py', _CLS, _BBOX, (4, 4)),
    PAAHead=Head('paa/paa_r50_fpn_1x_coco.py', _CLS, (*_BBOX, 'loss_iou'), (4, 4, 1)),
    RTMDetSepBNHead=Head('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', _CLS, _BBOX, (4, 4), _BN, False),
    FoveaHead=Head('foveabox/fovea_r50_fpn_4xb4-1x_coco.py', _CLS, _BBOX, (4, 4), None),
    AutoAssignHead=Head('autoassign/autoassign_r50-caffe_fpn_1x_coco.py', ('loss_neg', ),
                        ('loss_pos', 'loss_center'), (4, 4, 1)),
    DDODHead=Head('ddod/ddod_r50_fpn_1x_coco.py', _CLS, (*_BBOX, 'loss_iou'), (4, 4, 1)),
    FSAFHead=Head('fsaf/fsaf_r50_fpn_1x_coco.py', _CLS, _BBOX, (4, 4), None,
                  metrics=('num_pos', 'pos_recall')),
    FreeAnchorRetinaHead=Head('free_anchor/freeanchor_r50_fpn_1x_coco.py', ('negative_bag_loss', ),
                              ('positive_bag_loss', ), (36, 36), None),
    PISARetinaHead=Head('pisa/retinanet-r50_fpn_pisa_1x_coco.py', _CLS, (*_BBOX, 'loss_carl'),
                        (36, 36), None),
    SABLRetinaHead=Head('sabl/sabl-retinanet_r50_fpn_1x_coco.py', _CLS,
                        ('loss_bbox_cls', 'loss_bbox_reg'), (4, 28, 28), None),
    NASFCOSHead=Head('nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py', _CLS,
                     (*_BBOX, 'loss_centerness'), (4, 4, 1)),
    CenterNetUpdateHead=Head('centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py', _CLS,
                             _BBOX, (4, 4)),
    RepPointsHead=Head('reppoints/reppoints-moment_r50_fpn_1x_coco.py', _CLS,
                       ('loss_pts_init', 'loss_pts_refine'), (4, 18, 18), None,
                       changes=dict(point_feat_channels=CHANNELS)),
    YOLOXHead=Head('yolox/yolox_tiny_8xb8-300e_coco.py', ('loss_obj', ),
                   ('loss_cls', *_BBOX), (4, 4, 1), _BN, False),
)  # yapf: disable


def head_config(name: str, kind: str = 'upstream', **changes: Any) -> dict:
    """Config of a head, as a detector builds it."""
    head = HEADS[name]
    model = upstream_model(head.config)
    cfg = dict(
        model.bbox_head,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        num_classes=CLASSES,
        norm_cfg=head.norm,
        train_cfg=model.get('train_cfg'),
        test_cfg=model.test_cfg,
        **head.changes)
    if name != 'NASFCOSHead':  # It has a number of its own.
        cfg['stacked_convs'] = 1
    if kind == 'ours' and name in _REGISTERED:
        cfg['type'] = _REGISTERED[name]
    elif kind != 'upstream':
        cfg.update(type='mmaqd.MultiLevelHead', head=name)
    if kind in ('multi-level', 'low-bit') and head.shared:
        cfg['norm_cfg'] = dict(type='mmaqd.MultiLevelBN', num_levels=5)
    return {**cfg, **changes}


def make_head(name: str, kind: str = 'upstream', **changes: Any) -> nn.Module:
    """A head with the weights that upstream's ``init_weights`` gives it."""
    return _build_head(name, kind, **changes) if changes else deepcopy(_made_head(name, kind))


@cache
def _made_head(name: str, kind: str) -> nn.Module:
    return _build_head(name, kind)


def _build_head(name: str, kind: str, **changes: Any) -> nn.Module:
    head = build(head_config(name, kind, **changes))
    if kind == 'low-bit':
        prepare(
            head,
            weight_quantizer=dict(
                type='mmaqd.LIQWeightQuantizer', bit_width=4, normalize=False, start='constant'),
            input_quantizer=dict(
                type='mmaqd.LIQActivationQuantizer', bit_width=4, signed=True, start='constant'),
            rules=_IN_FLOAT if name == 'TOODHead' else [])
    torch.manual_seed(0)
    head.init_weights()
    return head


def strides(name: str) -> tuple[int, ...]:
    """Of the levels that the head works on."""
    return (8, 16, 32, 64, 128) if HEADS[name].shared else (8, 16, 32)


def make_feats(name: str, num_images: int = 1) -> list[Tensor]:
    """A map a level of images of ``SIZE`` pixels."""
    generator = torch.Generator().manual_seed(3)
    return [
        torch.rand(num_images, CHANNELS, SIZE // stride, SIZE // stride, generator=generator)
        for stride in strides(name)
    ]


def metainfo() -> dict:
    """What is known of an image that was enlarged by ``SCALE``."""
    original = (int(SIZE / SCALE), ) * 2
    return dict(
        img_shape=(SIZE, SIZE),
        pad_shape=(SIZE, SIZE),
        batch_input_shape=(SIZE, SIZE),
        ori_shape=original,
        scale_factor=(SCALE, SCALE))


def instances(*boxes: list[float]) -> InstanceData:
    """The truth of an image: its boxes, all of one class."""
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.full((len(boxes), ), 2))


def sample(*boxes: list[float]) -> DetDataSample:
    """An image with its truth, as a detector gives it to a head."""
    made = DetDataSample(metainfo=metainfo(), gt_instances=instances(*boxes))
    made.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return made


def loss_values(losses: dict) -> dict[str, float]:
    """Each loss as one number, whether it comes as a list over the levels or not."""
    return {
        name: float(sum(each.sum() for each in (value if isinstance(value, list) else [value])))
        for name, value in losses.items()
    }


def all_scores(head: nn.Module) -> ConfigDict:
    """The head's way of predicting, but keeping boxes whatever their scores are."""
    return ConfigDict(head.test_cfg, score_thr=0., nms_pre=50, max_per_img=50)
