"""Distillation of a head's predictions, against the formulas in plain loops."""
from __future__ import annotations

from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
from torch import Tensor

from mmaqd.registry import MODELS

CLASSES = 3
Outputs = tuple[list[Tensor], ...]


def make_loss(**changes: Any) -> torch.nn.Module:
    return MODELS.build(dict(type='mmaqd.OutputDistillationLoss', **changes))


def outputs(seed: int, anchors: int = 1, centerness: bool = True) -> Outputs:
    """What a head returns for two images and two levels, with a wide range of scores."""
    generator = torch.Generator().manual_seed(seed)
    channels = [anchors * CLASSES, anchors * 4] + [anchors] * centerness
    return tuple(
        [2 * torch.randn(2, count, size, size + 1, generator=generator) - 1 for size in (3, 2)]
        for count in channels)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def cross_entropy(p: float, target: float) -> float:
    return -target * log(p) - (1 - target) * log(1 - p)


def reference(student: Outputs, teacher: Outputs, anchors: int, gamma: float,
              min_score: float) -> dict[str, float]:
    """The losses by the formulas in the docstring, one anchor after the other."""
    cls = reg = center = confidences = 0.0
    for level in range(len(student[0])):
        s, t = ([kind[level].double() for kind in side] for side in (student, teacher))
        n, _, h, w = s[0].shape
        for i, y, x, a in torch.cartesian_prod(*map(torch.arange, (n, h, w, anchors))).tolist():
            s_at, t_at = ([kind[i, :, y, x].tolist() for kind in side] for side in (s, t))
            pairs = [(sigmoid(s_at[0][a * CLASSES + c]), sigmoid(t_at[0][a * CLASSES + c]))
                     for c in range(CLASSES)]
            cls += sum(abs(p - q)**gamma * cross_entropy(p, q) for p, q in pairs)
            confidence = max(q for _, q in pairs)
            confidence = confidence if confidence >= min_score else 0.0
            confidences += confidence
            reg += confidence * sum(abs(s_at[1][4 * a + k] - t_at[1][4 * a + k])
                                    for k in range(4)) / 4
            if len(s) == 3:
                p, q = sigmoid(s_at[2][a]), sigmoid(t_at[2][a])
                center += confidence * (q * log(q / p) + (1 - q) * log((1 - q) / (1 - p)))
    factor = 1 / max(confidences, 1)
    names = ['loss_distill_cls', 'loss_distill_reg', 'loss_distill_centerness']
    return dict(zip(names[:len(student)], [factor * cls, factor * reg, factor * center]))


@pytest.mark.parametrize('anchors, centerness', [(1, True), (1, False), (9, False), (2, True)])
@pytest.mark.parametrize('gamma, min_score', [(2.0, 0.1), (1.0, 0.6)])
def test_against_the_formulas(anchors, centerness, gamma, min_score):
    student, teacher = (outputs(seed, anchors, centerness) for seed in (0, 1))
    losses = make_loss(gamma=gamma, min_score=min_score)([student], [teacher])
    expected = reference(student, teacher, anchors, gamma, min_score)
    assert losses.keys() == expected.keys()
    assert {
        name: value.item()
        for name, value in losses.items()
    } == pytest.approx(
        expected, rel=1e-4)


def test_weights_multiply():
    sides = [outputs(0)], [outputs(1)]
    plain, weighted = make_loss()(*sides), make_loss(loss_weight=3.0, box_weight=0.5)(*sides)
    factors = dict(loss_distill_cls=3.0, loss_distill_reg=1.5, loss_distill_centerness=1.5)
    assert weighted.keys() == factors.keys()
    for name, factor in factors.items():
        torch.testing.assert_close(weighted[name], factor * plain[name])


def test_like_the_teacher_is_no_loss_and_no_gradient():
    teacher = outputs(1)
    student = tuple([each.clone().requires_grad_() for each in kind] for kind in teacher)
    losses = make_loss()([student], [teacher])
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(losses, 0.0)
    sum(losses.values()).backward()
    # p_t log(p_t) of the centerness is computed twice by the same formula
    assert all(each.grad.abs().max() < 1e-6 for kind in student for each in kind)


def test_easy_background_does_not_drown_an_object():
    """10 000 points where both are sure that there is nothing, and one object that is missed."""
    teacher = [torch.full((1, 1, 100, 100), -5.0)], [torch.zeros(1, 4, 100, 100)]
    student = [torch.full((1, 1, 100, 100), -4.5)], [torch.zeros(1, 4, 100, 100)]
    teacher[0][0][..., 50, 50] = 3.0
    student[0][0].requires_grad_()
    make_loss()([student], [teacher])['loss_distill_cls'].backward()
    grad = student[0][0].grad
    assert grad[..., 50, 50] < 0
    assert grad[..., 50, 50].abs() > 10 * (grad.sum() - grad[..., 50, 50]).abs()


def test_boxes_are_compared_only_where_the_teacher_is_sure():
    student, teacher = outputs(0), outputs(1)
    sure = torch.stack([teacher[0][0].sigmoid().amax(1) >= 0.6] * 4, dim=1)
    assert 0 < sure.sum() < sure.numel()
    boxes = student[1][0].requires_grad_()
    make_loss(min_score=0.6)([student], [teacher])['loss_distill_reg'].backward()
    assert torch.equal(boxes.grad != 0, sure)


def test_a_teacher_that_is_never_sure_gives_finite_losses():
    teacher = outputs(1)
    teacher = ([torch.full_like(each, -20.0) for each in teacher[0]], *teacher[1:])
    losses = make_loss()([outputs(0)], [teacher])
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses['loss_distill_reg'] == 0


def test_half_precision_is_compared_in_full():
    student, teacher = outputs(0), outputs(1)
    halves = tuple([each.half() for each in kind] for kind in student)
    exact = make_loss()([student], [teacher])
    losses = make_loss()([halves], [teacher])
    torch.testing.assert_close(losses, exact, rtol=1e-2, atol=1e-3)
    assert {value.dtype for value in losses.values()} == {torch.float32}


def test_softmax_head_is_refused():
    head = SimpleNamespace(use_sigmoid_cls=False)
    with pytest.raises(
            ValueError, match='bbox_head is a SimpleNamespace that does not classify by '
            'sigmoid'):
        make_loss().check(head)
    sigmoid_head = RetinaHead(3, 16, stacked_convs=1)
    assert make_loss().check(sigmoid_head) is None


@pytest.mark.parametrize('student, teacher, message', [
    pytest.param(outputs(0), outputs(1, anchors=2), 'the shapes .* in the student', id='anchors'),
    pytest.param(outputs(0)[:1], outputs(1)[:1], 'must give class scores', id='no-boxes'),
    pytest.param((outputs(0)[0], outputs(0)[0]), (outputs(1)[0], outputs(1)[0]),
                 r'on one level gives the shapes \[\(2, 3, 3, 4\), \(2, 3, 3, 4\)\]',
                 id='not-four-numbers'),
])
def test_outputs_of_another_form_are_refused(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        make_loss()([student], [teacher])


@pytest.mark.parametrize('argument', [
    dict(loss_weight=-1.0),
    dict(box_weight=-0.5),
    dict(gamma=0.5),
    dict(min_score=1.5),
    dict(min_score=-0.1),
])
def test_arguments_out_of_range(argument):
    (name, value), = argument.items()
    with pytest.raises(ValueError, match=f'{name} must .* but got {value}'):
        make_loss(**argument)


def head(classes: int) -> SimpleNamespace:
    return SimpleNamespace(use_sigmoid_cls=True, cls_out_channels=classes)


def maps(*channels: int) -> Outputs:
    return tuple([torch.rand(1, count, 2, 2)] for count in channels)


@pytest.mark.parametrize('channels, classes', [
    pytest.param((34, 68), 34, id='distances-of-GFL-as-17-anchors-of-2-classes'),
    pytest.param((80, 68), 80, id='distances-of-GFL'),
    pytest.param((3, 4, 4), 3, id='refined-boxes-of-VFNet'),
    pytest.param((3, 4, 1, 1), 3, id='four-kinds'),
    pytest.param((6, 4), 3, id='boxes-of-one-anchor-of-two'),
])
def test_other_kinds_of_outputs_are_refused(channels, classes) -> None:
    loss = make_loss()
    loss.check(head(classes))
    with pytest.raises(ValueError, match='must give class scores.*distill features only'):
        loss([maps(*channels)], [maps(*channels)])


@pytest.mark.parametrize('channels', [(3, 4), (6, 8), (3, 4, 1), (6, 8, 2)])
def test_the_anchors_are_those_of_the_head(channels) -> None:
    loss = make_loss()
    loss.check(head(3))
    assert all(value.isfinite() for value in loss([maps(*channels)], [maps(*channels)]).values())
