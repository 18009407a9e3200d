"""What MMDetection's unit tests ask of a dense head, asked of ours and, as the control, of its own.

Written anew from what they check (``tests/test_models/test_dense_heads`` of MMDetection 3.3): the
heads are those of MMDetection's configs; each test runs with upstream's head, with ours in its
place, with a BN per level and at 4 bits.
"""
from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.dense_heads import FCOSHead, RetinaHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmaqd.layers import MultiLevelBN, QuantLayer
from mmaqd.models import AQDFCOSHead, AQDRetinaHead, MultiLevelHeadMixin
from mmaqd.registry import MODELS
from tests.helpers.upstream_heads import (HEADS, KINDS, SCALE, SIZE, all_scores, instances,
                                          loss_values, make_feats, make_head, metainfo, sample,
                                          strides)

BOX = [23.7, 23.9, 239.3, 151.1]
OUTSIDE = [4. * SIZE, 4. * SIZE, 4. * SIZE + 10, 4. * SIZE + 10]
each_case = pytest.mark.parametrize('name, kind', [
    (name, kind) for name, head in HEADS.items() for kind in KINDS
    if head.shared or kind != 'multi-level'])  # yapf: disable
each_kind = pytest.mark.parametrize('kind', KINDS)


def maps(output: Any) -> list[Tensor]:
    """The maps of one level, which SABL puts into pairs."""
    return [output] if isinstance(output, Tensor) else list(output)


def flat(outputs: tuple) -> list[Tensor]:
    """All maps of all levels."""
    return [each for output in outputs for level in output for each in maps(level)]


def of_every_level(key: str) -> str:
    """The name of a parameter in a head whose levels share a BN."""
    return re.sub(r'(\.bn)\.\d+\.', r'\1.', key)


def losses_of(head: nn.Module, outputs: tuple, *boxes: list[float]) -> dict[str, float]:
    return loss_values(head.loss_by_feat(*outputs, [instances(*boxes)], [metainfo()]))


def assert_losses(name: str, found: dict[str, float], with_boxes: bool) -> None:
    known = HEADS[name]
    assert set(found) == {*known.background, *known.objects, *known.metrics}
    for loss in known.background:
        assert found[loss] > 0, loss
    for loss in known.objects:
        assert (found[loss] > 0) if with_boxes else (found[loss] == 0), loss


@each_case
def test_init_weights_gives_what_upstream_does(name, kind):
    head = make_head(name, kind)
    assert isinstance(head, MODELS.get(name))
    assert isinstance(head, MultiLevelHeadMixin) == (kind != 'upstream')
    assert any(isinstance(module, QuantLayer) for module in head.modules()) == (kind == 'low-bit')
    has_levels = any(isinstance(module, MultiLevelBN) for module in head.modules())
    upstream = dict(make_head(name, **(dict(norm_cfg=dict(type='BN')) if has_levels else {}))
                    .named_parameters())  # yapf: disable
    found = {key: value for key, value in head.named_parameters() if '_quantizer.' not in key}
    for key, value in found.items():
        assert torch.equal(value, upstream[of_every_level(key)]), key
    assert {of_every_level(key) for key in found} == set(upstream)


@each_case
def test_forward_gives_each_kind_of_output_for_each_level(name, kind):
    head = make_head(name, kind).train()
    from_generator = head.forward(feat for feat in make_feats(name, num_images=2))
    outputs = head.forward(make_feats(name, num_images=2))
    assert isinstance(outputs, tuple)
    assert all(map(torch.equal, flat(outputs), flat(from_generator)))
    if kind == 'ours':
        upstream = make_head(name).train()(make_feats(name, num_images=2))
        assert all(map(torch.equal, flat(outputs), flat(upstream)))
    assert all(len(output) == len(strides(name)) for output in outputs)
    for level, stride in enumerate(strides(name)):
        found = [each.shape for output in outputs for each in maps(output[level])]
        side = SIZE // stride
        assert found == [(2, channels, side, side) for channels in HEADS[name].channels]


@each_case
def test_loss_without_and_with_a_box(name, kind):
    head = make_head(name, kind)
    outputs = head.forward(make_feats(name))
    assert_losses(name, losses_of(head, outputs), with_boxes=False)
    assert_losses(name, losses_of(head, outputs, BOX), with_boxes=True)


@cache
def without_gradient(name: str, kind: str) -> set[str]:
    """The parameters that the loss of two images, one without a box, does not reach."""
    head = make_head(name, kind)
    losses = head.loss(tuple(make_feats(name, num_images=2)), [sample(BOX), sample()])
    assert_losses(name, loss_values(losses), with_boxes=True)
    kept = [value for key, value in losses.items() if key not in HEADS[name].metrics]
    sum(sum(each) if isinstance(each, list) else each for each in kept).sum().backward()
    gradients = {key: value.grad for key, value in head.named_parameters()}
    assert all(each is None or each.isfinite().all() for each in gradients.values())
    return {key for key, value in gradients.items() if value is None}


@pytest.mark.slow
@each_case
def test_loss_of_data_samples_reaches_what_it_does_upstream(name, kind):
    assert without_gradient(name, kind) == without_gradient(name, 'upstream')


@pytest.mark.slow
@each_case
@torch.no_grad()
def test_predict_by_feat(name, kind):
    head = make_head(name, kind).eval()
    outputs = head.forward(make_feats(name, num_images=2))
    found, rescaled = (
        head.predict_by_feat(
            *outputs, batch_img_metas=[metainfo()] * 2, cfg=all_scores(head), rescale=rescale)
        for rescale in (False, True))
    assert len(found) == len(rescaled) == 2
    for one, other in zip(found, rescaled):
        assert isinstance(one, InstanceData) and len(one) > 0
        assert one.bboxes.shape == (len(one), 4)
        assert one.scores.shape == one.labels.shape == (len(one), )
        assert one.bboxes.isfinite().all() and one.scores.isfinite().all()
        torch.testing.assert_close(other.bboxes, one.bboxes / SCALE)
    if name != 'PAAHead':  # Upstream's always votes.
        without_nms = head.predict_by_feat(
            *outputs, batch_img_metas=[metainfo()] * 2, cfg=all_scores(head), with_nms=False)
        assert all(len(each) >= len(one) for each, one in zip(without_nms, found))


@each_case
@torch.no_grad()
def test_predict_from_data_samples_alone_and_with_the_loss(name, kind):
    head = make_head(name, kind)
    feats, samples = tuple(make_feats(name, num_images=2)), [sample(BOX), sample()]
    found = []
    if name != 'RepPointsHead':  # In training upstream's gives points, of which it makes no boxes.
        losses, found = head.loss_and_predict(feats, samples, proposal_cfg=all_scores(head))
        assert_losses(name, loss_values(losses), with_boxes=True)
    head.eval().test_cfg = all_scores(head)
    for each in (*found, *head.predict(feats, samples, rescale=True)):
        assert isinstance(each, InstanceData) and set(each.keys()) >= {'bboxes', 'scores', 'labels'}


@each_kind
class TestFCOS:

    @pytest.mark.parametrize('changed', ['center_sampling', 'norm_on_bbox'])
    def test_loss_with_what_is_set_later(self, kind, changed):
        head = make_head('FCOSHead', kind)
        outputs = head.forward(make_feats('FCOSHead'))
        before = losses_of(head, outputs, BOX)
        setattr(head, changed, True)
        after = losses_of(head, outputs, BOX)
        assert_losses('FCOSHead', after, with_boxes=True)
        assert after != before

    @pytest.mark.parametrize(
        'option',
        ['conv_bias', 'norm_on_bbox', 'centerness_on_reg', 'center_sampling', 'dcn_on_last_conv'])
    def test_options(self, kind, option):
        head = make_head('FCOSHead', kind, **{option: True})
        outputs = head.forward(make_feats('FCOSHead'))
        assert_losses('FCOSHead', losses_of(head, outputs), with_boxes=False)
        assert_losses('FCOSHead', losses_of(head, outputs, BOX), with_boxes=True)


@each_kind
class TestTOOD:

    @pytest.mark.parametrize('epoch', [0, 4], ids=['ATSS', 'task-aligned'])
    @pytest.mark.parametrize('anchor_type', ['anchor_free', 'anchor_based'])
    def test_loss_of_both_phases(self, kind, anchor_type, epoch, message_hub):
        message_hub.update_info('epoch', epoch)
        head = make_head('TOODHead', kind, anchor_type=anchor_type)
        outputs = head.forward(make_feats('TOODHead'))
        assert_losses('TOODHead', losses_of(head, outputs), with_boxes=False)
        assert_losses('TOODHead', losses_of(head, outputs, BOX), with_boxes=True)

    def test_loss_with_convs_that_are_deformable(self, kind):
        head = make_head('TOODHead', kind, num_dcn=1)
        outputs = head.forward(make_feats('TOODHead'))
        assert_losses('TOODHead', losses_of(head, outputs, BOX), with_boxes=True)


@each_kind
class TestYOLOX:

    @pytest.mark.parametrize('use_depthwise', [False, True])
    def test_convs_and_their_last_epochs(self, kind, use_depthwise):
        head = make_head('YOLOXHead', kind, use_depthwise=use_depthwise)
        conv = DepthwiseSeparableConvModule if use_depthwise else ConvModule
        assert isinstance(head.multi_level_cls_convs[0][0], conv) and not head.use_l1
        outputs = head.forward(make_feats('YOLOXHead'))
        head.use_l1 = True
        found = losses_of(head, outputs, BOX)
        assert found.pop('loss_l1') > 0
        assert_losses('YOLOXHead', found, with_boxes=True)

    def test_a_box_out_of_the_image_is_none(self, kind):
        head = make_head('YOLOXHead', kind)
        outputs = head.forward(make_feats('YOLOXHead'))
        assert_losses('YOLOXHead', losses_of(head, outputs, OUTSIDE), with_boxes=False)


@pytest.mark.parametrize('head_class', [RetinaHead, AQDRetinaHead, FCOSHead, AQDFCOSHead])
def test_defaults_with_a_single_channel_and_no_norm(head_class):
    head = head_class(num_classes=4, in_channels=1, feat_channels=1, stacked_convs=1, norm_cfg=None)
    outputs = head.forward(torch.rand(1, 1, 64 // 2**level, 64 // 2**level) for level in range(5))
    assert all(len(output) == 5 for output in outputs)
    if issubclass(head_class, FCOSHead):
        assert_losses('FCOSHead', losses_of(head, outputs), with_boxes=False)
        assert_losses('FCOSHead', losses_of(head, outputs, BOX), with_boxes=True)
