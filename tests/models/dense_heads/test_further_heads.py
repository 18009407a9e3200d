"""Any upstream head that goes over the levels is multi-level by config, and equal to upstream's."""
from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from mmdet.models.dense_heads import GFLHead
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmaqd.layers import MultiLevelBN
from mmaqd.models import AQDFCOSHead, MultiLevelHeadMixin
from mmaqd.models.dense_heads.pyramid import Pyramid
from mmaqd.registry import MODELS
from tests.helpers.detector import (CHANNELS, LEVELS, MULTI_LEVEL_BN, NUM_CLASSES, build, head_cfg,
                                    loss, make_batch, model_cfg)

COMMON = dict(
    num_classes=NUM_CLASSES, in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=2)
ANCHORS = dict(
    type='AnchorGenerator',
    ratios=[1.0],
    octave_base_scale=4,
    scales_per_octave=1,
    strides=[8, 16, 32, 64, 128])
HEADS = dict(
    RetinaHead=dict(anchor_generator={
        **ANCHORS, 'octave_base_scale': 2
    }),
    FCOSHead=dict(strides=[8, 16, 32, 64, 128]),
    ATSSHead=dict(anchor_generator=ANCHORS),
    GFLHead=dict(
        anchor_generator=ANCHORS,
        reg_max=4,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss')),
    PAAHead=dict(anchor_generator=ANCHORS),
    VFNetHead=dict(),
    TOODHead=dict(anchor_generator=ANCHORS, num_dcn=0),
    RTMDetHead=dict(
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32, 64, 128])),
)


def make_feats() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        (level + 1) * torch.rand(2, CHANNELS, 2**(4 - level), 2**(4 - level), generator=generator)
        for level in range(LEVELS)
    ]


def make_head(head: str, multi_level: bool, **changes) -> nn.Module:
    cfg = {**COMMON, **HEADS[head], **changes}
    cfg.update(dict(type='mmaqd.MultiLevelHead', head=head) if multi_level else dict(type=head))
    made = build(cfg)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return made


def flat(outputs: tuple) -> list[Tensor]:
    return [each for kind in outputs for each in (kind if isinstance(kind, (list, tuple)) else ())]


def of_level(key: str, level: int) -> str:
    """The key of one BN as it is called in a BN of several levels."""
    module, _, name = key.rpartition('.')
    return f'{module}.{level}.{name}'


def norms(head: nn.Module) -> list[MultiLevelBN]:
    return [module for module in head.modules() if isinstance(module, MultiLevelBN)]


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('head', HEADS)
def test_with_plain_bn_it_is_the_upstream_head(head, training):
    ours, theirs = (make_head(head, kind, norm_cfg=dict(type='BN')) for kind in (True, False))
    assert isinstance(ours, type(theirs)) and isinstance(ours, MultiLevelHeadMixin)
    results = [flat(each.train(training)(make_feats())) for each in (ours, theirs)]
    assert len(results[0]) == len(results[1]) >= 2 * LEVELS
    assert all(map(torch.equal, *results))
    state = theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize('head', HEADS)
def test_each_level_is_the_upstream_head_with_its_own_bn(head):
    ours = make_head(head, True, norm_cfg=MULTI_LEVEL_BN).train()
    state, outputs = deepcopy(ours.state_dict()), flat(ours(make_feats()))
    for level in range(LEVELS):
        upstream = make_head(head, False, norm_cfg=dict(type='BN')).eval()
        own = {
            key: state.get(key, state.get(of_level(key, level)))
            for key in upstream.state_dict()
        }
        upstream.load_state_dict(own)
        upstream.train()
        expected = flat(upstream(make_feats()))[level::LEVELS]
        # In training a BN normalizes by its batch alone, so the other levels do not matter.
        assert all(map(torch.equal, outputs[level::LEVELS], expected))
    assert all(
        int(norm[level].num_batches_tracked) == int(state[f'{name}.{level}.num_batches_tracked']) +
        1 for name, norm in ours.named_modules() if isinstance(norm, MultiLevelBN)
        for level in range(LEVELS))
    assert norms(ours) and all(norm.level is None for norm in norms(ours))


@pytest.mark.parametrize('head', ['FCOSHead', 'TOODHead'])
@pytest.mark.parametrize(
    'given', [tuple, iter, lambda feats: (feat for feat in feats)], ids=['tuple', 'iter', 'gen'])
def test_any_iterable_of_feature_maps_will_do(head, given):
    ours = make_head(head, True, norm_cfg=MULTI_LEVEL_BN).eval()
    expected = flat(ours(make_feats()))
    assert all(map(torch.equal, flat(ours(given(make_feats()))), expected))


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_torch_compile_names_the_levels_too(backend):
    torch._dynamo.reset()
    ours = make_head('FCOSHead', True, norm_cfg=MULTI_LEVEL_BN).eval()
    compiled = torch.compile(ours, backend=backend, fullgraph=True)
    assert all(map(torch.equal, flat(compiled(make_feats())), flat(ours(make_feats()))))


@pytest.mark.parametrize('head', ['RetinaHead', 'ATSSHead'])
def test_torch_export_names_the_levels_too(head):
    ours = make_head(head, True, norm_cfg=MULTI_LEVEL_BN).eval()
    exported = torch.export.export(ours, (make_feats(), ), strict=False).module()
    assert all(map(torch.equal, flat(exported(make_feats())), flat(ours(make_feats()))))


def test_copies_and_pickles_are_of_the_same_kind():
    ours = make_head('GFLHead', True, norm_cfg=MULTI_LEVEL_BN).eval()
    for copy in (deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(copy) is type(ours) and isinstance(copy, GFLHead)
        assert all(map(torch.equal, flat(copy(make_feats())), flat(ours(make_feats()))))


def test_a_head_of_ours_is_taken_as_it_is():
    ours = MODELS.build(
        dict(head_cfg('FCOS'), type='mmaqd.MultiLevelHead', head='mmaqd.AQDFCOSHead'))
    assert type(ours) is AQDFCOSHead


def test_a_low_bit_detector_takes_it_by_config():
    cfg = model_cfg('ATSS', 4)
    cfg['detector'] = 'GFL'
    cfg['bbox_head'] = {
        **COMMON,
        **HEADS['GFLHead'], 'type': 'mmaqd.MultiLevelHead',
        'head': 'GFLHead',
        'norm_cfg': MULTI_LEVEL_BN
    }
    for role in ('weight_quantizer', 'input_quantizer'):
        cfg['quantization'][role]['start'] = 'constant'
    cfg['quantization']['rules'][1:] = [
        dict(pattern='bbox_head.gfl_*', weight_quantizer=dict(normalize=False))
    ]
    model = build(cfg).train()
    loss(model, make_batch()).backward()
    assert len(norms(model.bbox_head)) == 4
    assert all(parameter.grad is not None for parameter in model.bbox_head.parameters())


class TestMistakes:

    def test_a_single_tensor_instead_of_the_maps(self):
        with pytest.raises(TypeError, match='one feature map per pyramid level, but got a single'):
            make_head('FCOSHead', True, norm_cfg=MULTI_LEVEL_BN)(make_feats()[0])

    @pytest.mark.parametrize('head, kind, message', [
        ('GFLHeadd', KeyError, "'GFLHeadd' is not in the registry"),
        (3, TypeError, 'must be the type of a dense head'),
    ])
    def test_no_such_head(self, head, kind, message):
        if kind is not None:
            with pytest.raises(kind, match=message):
                build(dict(type='mmaqd.MultiLevelHead', head=head))

    def test_nothing_behind_the_mixin(self):
        with pytest.raises(TypeError, match=r'class Alone\(MultiLevelHeadMixin, GFLHead\)'):
            type('Alone', (MultiLevelHeadMixin, nn.Module), {})

    def test_the_mixin_in_the_second_place(self):
        with pytest.raises(TypeError, match='with the mixin first'):
            type('Behind', (GFLHead, MultiLevelHeadMixin), {})

    def test_levels_that_have_layers_of_their_own(self, monkeypatch):
        said = []
        monkeypatch.setattr(MMLogger.get_current_instance(), 'handle',
                            lambda record: said.append(record.getMessage()))
        head = build(
            dict(
                type='mmaqd.MultiLevelHead',
                head='YOLOXHead',
                num_classes=NUM_CLASSES,
                in_channels=CHANNELS,
                feat_channels=CHANNELS,
                norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=3)))
        for _ in range(2):
            head(make_feats()[:3])
        warnings = [text for text in said if 'see one pyramid level only' in text]
        assert len(warnings) == 1 and 'MultiLevelYOLOXHead: multi_level_cls_convs.0' in warnings[0]

    def test_shared_levels_are_not_warned_of(self, monkeypatch):
        said = []
        monkeypatch.setattr(MMLogger.get_current_instance(), 'handle',
                            lambda record: said.append(record.getMessage()))
        make_head('TOODHead', True, norm_cfg=MULTI_LEVEL_BN)(make_feats())
        assert not [text for text in said if 'one pyramid level only' in text]


class TestPyramid:

    class Layer:
        level = None

    def test_an_index_names_the_level(self):
        layer = self.Layer()
        pyramid = Pyramid('abcde', [layer])
        assert (pyramid[3], layer.level, pyramid[-1], layer.level) == ('d', 3, 'e', 4)

    def test_an_iteration_is_not_disturbed_by_a_look_at_another_level(self):
        layer = self.Layer()
        pyramid, seen = Pyramid('abc', [layer]), []
        for feat in pyramid:
            assert pyramid[0] == 'a'
            seen.append((feat, layer.level))
        assert seen == [('a', 0), ('b', 1), ('c', 2)] and layer.level is None

    def test_a_part_keeps_the_numbers(self):
        layer = self.Layer()
        part = Pyramid('abcde', [layer])[2:]
        assert len(part) == 3
        assert [(feat, layer.level) for feat in part] == [('c', 2), ('d', 3), ('e', 4)]
