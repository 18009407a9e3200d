"""Distillation of features: 1 - correlation, channel by channel."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmaqd.registry import MODELS


def make_loss(**changes):
    return MODELS.build(dict(type='mmaqd.FeatureDistillationLoss', **changes))


def maps(seed: int, sizes: tuple[int, ...] = (6, 3)) -> tuple[Tensor, ...]:
    """Feature maps of a pyramid, as a neck returns them: (2, 4, size, size + 1) each."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 4, size, size + 1, generator=generator) for size in sizes)


def mean_distance(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> float:
    """1 - correlation, averaged over the channels of each map and then over the maps."""
    distances = []
    for x, y in zip(student, teacher):
        rows = [each.double().numpy().swapaxes(0, 1).reshape(each.shape[1], -1) for each in (x, y)]
        distances.append(np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(*rows)]))
    return float(np.mean(distances))


def test_it_is_one_minus_the_correlation():
    student, teacher = maps(0), maps(1)
    losses = make_loss(loss_weight=3.0)([student], [teacher])
    assert list(losses) == ['loss_distill_neck']
    assert losses['loss_distill_neck'].item() == pytest.approx(
        3 * mean_distance(student, teacher), rel=1e-4)


def test_scale_and_offset_of_a_channel_do_not_matter():
    student, teacher = maps(0), maps(1)
    factor = torch.tensor([0.1, 1.0, 7.0, 30.0]).view(1, 4, 1, 1)
    moved = tuple(each * factor + 5 * factor for each in teacher)
    expected = make_loss()([student], [teacher])['loss_distill_neck']
    same = make_loss()([student], [moved])['loss_distill_neck']
    torch.testing.assert_close(same, expected, rtol=1e-4, atol=0.0)
    assert make_loss()([teacher], [moved])['loss_distill_neck'] < 1e-4
    assert make_loss()([teacher],
                       [tuple(-each
                              for each in teacher)])['loss_distill_neck'].item() == pytest.approx(
                                  2, rel=1e-4)


def test_outputs_of_several_calls_count_like_those_of_one():
    student, teacher = maps(0), maps(1)
    at_once = make_loss()([student], [teacher])
    one_by_one = make_loss()(list(student), list(teacher))
    assert at_once == one_by_one


@pytest.mark.parametrize('size', [1, 4], ids=['one-pixel', 'dead-channel'])
def test_a_channel_without_variance_gives_finite_gradients(size):
    student = torch.zeros(1, 4, size, size, requires_grad=True)
    make_loss()([student], [maps(1, (size, ))[0][:1, :, :, :size]])['loss_distill_neck'].backward()
    assert torch.isfinite(student.grad).all()


def test_half_precision_is_compared_in_full():
    student, teacher = maps(0), maps(1)
    halves = tuple(each.half() for each in student)
    loss = make_loss()([halves], [teacher])['loss_distill_neck']
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(mean_distance(student, teacher), rel=1e-2)


def test_the_name_of_the_loss_is_that_of_the_module():
    losses = make_loss(module='backbone.layer2')([maps(0)[0]], [maps(1)[0]])
    assert list(losses) == ['loss_distill_backbone_layer2']


def test_shapes_must_agree():
    with pytest.raises(
            ValueError,
            match=r'neck gives outputs of the shapes \[\(2, 4, 6, 7\), .*'
            r'and \[\(2, 4, 5, 6\)'):
        make_loss()([maps(0)], [maps(1, (5, 3))])


def test_only_feature_maps_can_be_compared():
    with pytest.raises(ValueError, match=r'must give feature maps \(N, C, H, W\)'):
        make_loss()([torch.zeros(2, 3)], [torch.zeros(2, 3)])


def test_weight_must_not_be_negative():
    with pytest.raises(ValueError, match='loss_weight must not be negative, but got -1'):
        make_loss(loss_weight=-1)
