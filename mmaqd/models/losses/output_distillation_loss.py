"""Distillation of what a dense head predicts."""
from __future__ import annotations

from typing import Any, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from torch import Tensor

from mmaqd.registry import MODELS

from .distillation_loss import DistillationLoss

_BOX_SIZE = 4


@MODELS.register_module()
class OutputDistillationLoss(DistillationLoss):
    """Compares the predictions of a dense head, one of ours or of MMDetection's, with sigmoid.

    With s, t the logits of student and teacher, p_s, p_t their sigmoids and c the largest p_t of
    an anchor or point over the classes, 0 where it is below ``min_score``:

    - classification: |p_s - p_t|^gamma BCE(s, p_t), summed over all; the first factor keeps the
      many easy background scores from drowning the others (quality focal loss, arXiv:2006.04388,
      with the teacher's score as the quality);
    - regression: c times the mean of |r_s - r_t| over the four numbers of a box, as the head
      predicts them, summed;
    - centerness, where the head has one: c times the Kullback-Leibler divergence from the
      teacher's to the student's, summed.

    Each sum is divided by the sum of c over the batch (at least 1; its mean over the processes).

    Args:
        loss_weight: Factor of all three, at least 0.
        box_weight: Further factor of regression and centerness, at least 0. The numbers that heads
            predict differ in size: those of ATSS, for example, are divided by standard deviations
            of 0.1 and 0.2.
        gamma: Exponent in the classification loss, at least 1.
        min_score: Boxes are compared where the teacher's score is at least this, 0..1.
        module: Name of the head.

    Returns:
        ``loss_distill_cls``, ``loss_distill_reg`` and, with centerness,
        ``loss_distill_centerness``.

    Raises:
        ValueError: An argument is out of its range; the head classifies by softmax; the shapes
            differ between student and teacher, or are not those of such a head.
    """

    def __init__(self,
                 loss_weight: float = 1.0,
                 box_weight: float = 1.0,
                 gamma: float = 2.0,
                 min_score: float = 0.1,
                 module: str = 'bbox_head') -> None:
        super().__init__(module, loss_weight)
        for name, value, least, most in (('box_weight', box_weight, 0, float('inf')),
                                         ('gamma', gamma, 1, float('inf')), ('min_score', min_score,
                                                                             0, 1)):
            if not least <= value <= most:
                raise ValueError(f'{type(self).__name__}: {name} must be between {least} and '
                                 f'{most}, but got {value!r}.')
        self.box_weight = box_weight
        self.gamma = gamma
        self.min_score = min_score
        self._num_classes: int | None = None

    def check(self, module: nn.Module) -> None:
        if not getattr(module, 'use_sigmoid_cls', False):
            raise ValueError(
                f'{type(self).__name__}: {self.module} is a {type(module).__name__} that does not '
                'classify by sigmoid. Give its loss_cls use_sigmoid=True, or distill features '
                'only.')
        self._num_classes = getattr(module, 'cls_out_channels', None)

    def forward(self, student: list[Any], teacher: list[Any]) -> dict[str, Tensor]:
        (students, ), (teachers, ) = student, teacher
        self._check_same_shapes(_flat(students), _flat(teachers))
        levels = [self._level(*level) for level in zip(zip(*students), zip(*teachers))]
        *sums, confidences = (torch.stack(each).sum() for each in zip(*levels))
        factor = self.loss_weight / reduce_mean(confidences).clamp(min=1.0)
        names = ('loss_distill_cls', 'loss_distill_reg', 'loss_distill_centerness')
        return {name: factor * total for name, total in zip(names, sums)}

    def _level(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The three sums of a pyramid level (two without centerness), and that of c."""
        # fp16 would overflow in the sums.
        (s_cls, s_reg, *s_center), (t_cls, t_reg, *t_center) = (
            self._by_anchor([each.float() for each in side]) for side in (student, teacher))
        scores = t_cls.sigmoid()
        confidence = scores.amax(dim=2)
        confidence = confidence * (confidence >= self.min_score)
        focus = (s_cls.sigmoid() - scores).abs().pow(self.gamma)
        cls = (focus * _bce(s_cls, scores)).sum()
        boxes = [(s_reg - t_reg).abs().mean(dim=2)]
        boxes += [_bernoulli_kl(s, t).mean(dim=2) for s, t in zip(s_center, t_center)]
        sums = [self.box_weight * (confidence * each).sum() for each in boxes]
        return (cls, *sums, confidence.sum())

    def _by_anchor(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """(N, A K, H, W) to (N, A, K, H, W) for each kind of prediction, A anchors of a point."""
        channels = [each.shape[1] for each in outputs]
        anchors = self._anchors(*channels[:2]) if len(channels) in (2, 3) else 0
        if not anchors or channels[2:] not in ([], [anchors]):
            classes = '' if self._num_classes is None else f' and C = {self._num_classes}'
            raise ValueError(
                f'{type(self).__name__}: {self.module} must give class scores (N, A C, H, W), '
                'boxes (N, A 4, H, W) and maybe a centerness (N, A, H, W), with A anchors of a '
                f'point{classes}, but on one level gives the shapes '
                f'{[tuple(each.shape) for each in outputs]}. Where boxes are distributions of '
                'distances (GFL), distill features only.')
        return [each.unflatten(1, (anchors, -1)) for each in outputs]

    def _anchors(self, class_channels: int, box_channels: int) -> int:
        """Number of anchors of a point, 0 if the channels are not those of four numbers a box."""
        anchors, rest = divmod(box_channels, _BOX_SIZE)
        if self._num_classes is None:
            fits = anchors and class_channels % anchors == 0
        else:
            fits = class_channels == anchors * self._num_classes
        return anchors if fits and not rest else 0


def _flat(outputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [each for kind in outputs for each in kind]


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction='none')


def _bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    targets = teacher.sigmoid()
    return _bce(student, targets) - _bce(teacher, targets)
