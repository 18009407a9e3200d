"""What a head's test_cfg asks for, checked: from prediction maps to detections."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np
import torch.nn as nn
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator

_STEPS = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
_TEST_KEYS = {'nms_pre', 'min_bbox_size', 'score_thr', 'nms', 'max_per_img'}
_NMS_KEYS = {'type', 'iou_threshold', 'iou_thr', 'class_agnostic', 'split_thr', 'offset',
             'score_threshold', 'max_num'}  # yapf: disable
_HINT = 'Write the prediction maps without it: --raw (raw=True).'


class UnsupportedSetting(ValueError):
    """The detections of a config can't be computed in the file."""


@dataclass(frozen=True, eq=False)
class Level:
    """Where the boxes of a pyramid level start from.

    Attributes:
        stride: (height, width) in pixels of the image.
        priors: float32 at the first pixel, (A, 4) anchors or (1, 2) points.
    """

    stride: tuple[float, float]
    priors: np.ndarray


@dataclass(frozen=True, eq=False)
class Decoding:
    """How prediction maps become detections.

    Attributes:
        num_classes: Channels of the scores, for each prior.
        levels: From the finest on.
        means, stds: Of the deltas of anchors; None where distances from points are predicted.
        clip_border: Whether boxes end where the image ends.
        center_clamp: Most pixels that a center moves, or None.
        score_thr: Scores up to this are dropped, before centerness.
        nms_pre: Most candidates of a level.
        min_bbox_size: Boxes up to this wide or high are dropped; negative for none.
        iou_threshold: Of NMS.
        nms_score_threshold: Scores up to this are dropped, after centerness; 0 drops none.
        max_per_img: Most detections of an image.
    """

    num_classes: int
    levels: tuple[Level, ...]
    means: tuple[float, ...] | None
    stds: tuple[float, ...] | None
    clip_border: bool
    center_clamp: float | None
    score_thr: float
    nms_pre: int
    min_bbox_size: float
    iou_threshold: float
    nms_score_threshold: float
    max_per_img: int

    def thresholds(self) -> dict[str, float]:
        """What decides which detections there are, by the names of test_cfg."""
        names = ('score_thr', 'nms_pre', 'min_bbox_size', 'iou_threshold', 'max_per_img')
        return {name: getattr(self, name) for name in names}


def decoding_of(head: nn.Module, test_cfg: Mapping | None = None) -> Decoding:
    """How a dense head of MMDetection makes detections of its predictions.

    Args:
        head: RetinaNet's, FCOS's, ATSS's, or any that inherits their post-processing.
        test_cfg: Instead of the head's own.

    Raises:
        UnsupportedSetting: The head, its box coder or a setting has no form in ONNX; the message
            names the key.
    """
    cfg = head.test_cfg if test_cfg is None else test_cfg
    _check_head(head)
    coder = head.bbox_coder
    is_delta = type(coder) is DeltaXYWHBBoxCoder
    return Decoding(
        num_classes=head.cls_out_channels,
        levels=_levels(head.prior_generator, is_delta),
        means=tuple(coder.means) if is_delta else None,
        stds=tuple(coder.stds) if is_delta else None,
        clip_border=bool(coder.clip_border),
        center_clamp=float(coder.ctr_clamp) if is_delta and coder.add_ctr_clamp else None,
        **_test_settings(cfg))


def _check_head(head: nn.Module) -> None:
    name = type(head).__name__
    changed = [
        step for step in _STEPS
        if getattr(type(head), step, None) is not getattr(BaseDenseHead, step)
    ]
    if changed:
        _refuse(
            'model.bbox_head.type', name, 'a head with the post-processing of RetinaHead, '
            f'FCOSHead or ATSSHead (it has a {changed[0]} of its own)')
    custom = getattr(head.loss_cls, 'custom_cls_channels', False)
    if custom or not getattr(head, 'use_sigmoid_cls', False):
        _refuse('model.bbox_head.loss_cls', type(head.loss_cls).__name__, 'one with use_sigmoid')
    coder, priors = type(head.bbox_coder), type(head.prior_generator)
    if (coder, priors) not in {(DeltaXYWHBBoxCoder, AnchorGenerator),
                               (DistancePointBBoxCoder, MlvlPointGenerator)}:
        _refuse('model.bbox_head.bbox_coder', f'{coder.__name__} with {priors.__name__}',
                'DeltaXYWHBBoxCoder with AnchorGenerator, or DistancePointBBoxCoder with points')


def _levels(generator: Any, is_delta: bool) -> tuple[Level, ...]:
    levels = []
    for index, (width, height) in enumerate(generator.strides):
        if is_delta:
            priors = generator.base_anchors[index].detach().cpu().numpy().astype(np.float32)
        else:
            priors = np.full((1, 2), generator.offset, np.float32)
        levels.append(Level((float(height), float(width)), priors))
    return tuple(levels)


def _test_settings(cfg: Mapping) -> dict[str, Any]:
    _check_keys('model.test_cfg', cfg, _TEST_KEYS)
    nms = cfg.get('nms') or {}
    _check_keys('model.test_cfg.nms', nms, _NMS_KEYS)
    if nms.get('type', 'nms') != 'nms' or not nms:
        _refuse('model.test_cfg.nms.type', nms.get('type'), "'nms', suppression by class")
    for key in ('class_agnostic', 'offset'):
        if nms.get(key):
            _refuse(f'model.test_cfg.nms.{key}', nms[key], 'none')
    most = [cfg.get('max_per_img', -1)]
    if nms.get('max_num', -1) > 0:
        most.append(nms['max_num'])
    if cfg.get('min_bbox_size',
               -1) > 0:  # measured in the original image, which a file doesn't know
        _refuse('model.test_cfg.min_bbox_size', cfg['min_bbox_size'], '0 or none')
    return dict(
        score_thr=float(cfg.get('score_thr', 0)),
        nms_pre=_positive('nms_pre', cfg.get('nms_pre', -1)),
        min_bbox_size=float(cfg.get('min_bbox_size', -1)),
        iou_threshold=_fraction(nms),
        nms_score_threshold=float(nms.get('score_threshold', 0)),
        max_per_img=min(_positive('max_per_img', each) for each in most))


def _check_keys(where: str, given: Mapping, known: set[str]) -> None:
    for key in given:
        if key not in known:
            _refuse(f'{where}.{key}', given[key], f'only {", ".join(sorted(known))}')


def _fraction(nms: Mapping) -> float:
    value = nms.get('iou_threshold', nms.get('iou_thr'))
    if not isinstance(value, (int, float)) or not 0 < value <= 1:
        _refuse('model.test_cfg.nms.iou_threshold', value, 'a number above 0, up to 1')
    return float(value)


def _positive(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        _refuse(f'model.test_cfg.{key}', value, 'a whole number of at least 1')
    return value


def _refuse(key: str, got: Any, expected: str) -> None:
    raise UnsupportedSetting(f'{key}: got {got!r}, but a file with boxes needs {expected}. {_HINT}')
