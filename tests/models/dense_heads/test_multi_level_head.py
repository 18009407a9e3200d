"""Heads that know the pyramid level, against the upstream heads and loops written here."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel
from mmaqd.layers import MultiLevelBN, QuantConv2d
from mmaqd.models import AQDATSSHead, AQDFCOSHead, AQDRetinaHead, MultiLevelHeadMixin
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS
from tests.helpers.counting import count_quantizations
from tests.helpers.detector import (CHANNELS, DETECTORS, LEVELS, MULTI_LEVEL_BN, NUM_CLASSES, build,
                                    build_calibrated, head_cfg, loss, make_batch, model_cfg)

UPSTREAM = dict(RetinaNet=RetinaHead, FCOS=FCOSHead, ATSS=ATSSHead)
OURS = dict(RetinaNet=AQDRetinaHead, FCOS=AQDFCOSHead, ATSS=AQDATSSHead)
PLAIN_NORMS = [
    pytest.param(None, id='no-norm'),
    pytest.param(dict(type='GN', num_groups=4), id='gn'),
    pytest.param(dict(type='BN'), id='shared-bn'),
]

# What the upstream heads hand to their forward_single besides the feature map.
PER_LEVEL = dict(RetinaNet=(), FCOS=('scales', 'strides'), ATSS=('scales', ))


class AQDGFLHead(MultiLevelHeadMixin, GFLHead):
    """What a user wrote for a further head when the attributes of a level had to be named."""

    per_level_attributes = ('scales', )


def make_feats(levels: int = LEVELS) -> list[Tensor]:
    """Non-negative feature maps of 16 x 16 down to 1 x 1, of a different size on every level."""
    generator = torch.Generator().manual_seed(2)
    return [
        (level + 1) * torch.rand(2, CHANNELS, 2**(4 - level), 2**(4 - level), generator=generator)
        for level in range(levels)
    ]


def make_head(detector: str, **changes) -> nn.Module:
    """A head in which no two parameters or statistics are alike."""
    torch.manual_seed(0)
    return scramble(MODELS.build(head_cfg(detector, **changes)))


def scramble(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return module


def assert_equal_outputs(ours: tuple, theirs: tuple) -> None:
    assert len(ours) == len(theirs)
    for our_kind, their_kind in zip(ours, theirs):
        assert len(our_kind) == len(their_kind)
        assert all(map(torch.equal, our_kind, their_kind))


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('norm', PLAIN_NORMS)
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_with_a_plain_norm_it_is_the_upstream_head(detector, norm, training):
    ours = make_head(detector, norm_cfg=norm).train(training)
    theirs = make_head(detector, norm_cfg=norm, type_prefix='mmdet.').train(training)
    assert type(ours) is OURS[detector] and type(theirs) is UPSTREAM[detector]
    theirs.load_state_dict(ours.state_dict())
    assert_equal_outputs(ours(make_feats()), theirs(make_feats()))
    state = theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS'])
@pytest.mark.parametrize('norm', PLAIN_NORMS[1:])
@pytest.mark.parametrize('bits', [None, 4], ids=['float', 'w4a4'])
def test_detectors_train_with_a_plain_norm(detector, norm, bits):
    model = build(model_cfg(detector, bits, norm_cfg=norm)).train()
    calibrate(model, [make_batch()])
    loss(model, make_batch()).backward()
    head = model.bbox_head
    assert not [module for module in head.modules() if isinstance(module, MultiLevelBN)]
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert head.cls_convs[0].conv.weight.grad.any()
    if bits:
        assert head.cls_convs[0].conv.weight_quantizer.interval.grad != 0


class TestFrozenNorm:
    """``norm_eval``: BN of the head keeps its statistics while training."""

    NORMS = [
        pytest.param(MULTI_LEVEL_BN, id='multi-level-bn'),
        pytest.param(dict(type='BN'), id='shared-bn'),
        pytest.param(dict(type='GN', num_groups=4), id='gn')
    ]

    @staticmethod
    def statistics(module: nn.Module) -> dict[str, Tensor]:
        return {
            key: value.clone()
            for key, value in module.state_dict().items()
            if 'running' in key or 'num_batches' in key
        }

    @pytest.mark.parametrize('detector', DETECTORS)
    @pytest.mark.parametrize('norm', NORMS)
    def test_training_uses_and_keeps_the_running_statistics(self, detector, norm):
        frozen = make_head(detector, norm_cfg=norm, norm_eval=True).train()
        before = self.statistics(frozen)
        outputs = frozen(make_feats())
        assert all(
            torch.equal(before[key], value) for key, value in self.statistics(frozen).items())
        assert frozen.training and frozen.cls_convs.training
        expected = make_head(detector, norm_cfg=norm).train()
        for module in expected.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert_equal_outputs(outputs, expected(make_feats()))
        sum(each.sum() for kind in outputs for each in kind).backward()
        norm = frozen.cls_convs[0].norm
        assert all(parameter.grad.any() for parameter in norm.parameters())

    def test_by_default_the_statistics_follow_the_batches(self):
        head = make_head('RetinaNet').train()
        before = self.statistics(head)
        head(make_feats())
        assert not any(
            torch.equal(before[key], value) for key, value in self.statistics(head).items())

    def test_the_head_goes_to_evaluation_and_back(self):
        head = make_head('RetinaNet', norm_eval=True)
        norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
        for mode in (True, False, True):
            assert head.train(mode) is head
            assert (head.training, any(norm.training for norm in norms)) == (mode, False)

    def test_a_low_bit_detector_takes_it_by_config(self):
        cfg = model_cfg('FCOS', 4, norm_eval=True)
        cfg['quantization']['weight_quantizer']['normalize'] = False  # frozen BN can't undo it
        model = build(cfg)
        calibrate(model, [make_batch()])
        model.train()
        before = self.statistics(model.bbox_head)
        loss(model, make_batch()).backward()
        after = self.statistics(model.bbox_head)
        assert all(torch.equal(before[key], value) for key, value in after.items())
        assert model.neck.lateral_convs[0].bn.training


def level_state(state: dict, level: int) -> dict:
    """The state of a head with one BN, which is that of one level of ``state``."""
    own = f'.bn.{level}.'
    others = [f'.bn.{other}.' for other in range(LEVELS) if other != level]
    return {
        key.replace(own, '.bn.'): value
        for key, value in state.items() if not any(other in key for other in others)
    }


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_each_level_is_the_upstream_head_with_the_bn_of_that_level(detector, training):
    head = make_head(detector).train(training)
    upstream = make_head(detector, norm_cfg=dict(type='BN'), type_prefix='mmdet.').train(training)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    outputs, feats = head(make_feats()), make_feats()
    for level in range(LEVELS):
        upstream.load_state_dict(level_state(before, level))
        extras = [getattr(upstream, name)[level] for name in PER_LEVEL[detector]]
        expected = upstream.forward_single(feats[level], *extras)
        assert all(map(torch.equal, [kind[level] for kind in outputs], expected))
        after = level_state(head.state_dict(), level)
        assert all(torch.equal(after[key], value) for key, value in upstream.state_dict().items()
                   ), 'the running statistics of a level come from that level alone'


def test_retina_head_as_a_loop_over_levels():
    head = make_head('RetinaNet', stacked_convs=2).eval()
    cls_scores, bbox_preds = head(make_feats())
    for level, feat in enumerate(make_feats()):
        cls = reg = feat
        for block in head.cls_convs:
            cls = torch.relu(block.bn[level](block.conv(cls)))
        for block in head.reg_convs:
            reg = torch.relu(block.bn[level](block.conv(reg)))
        assert torch.equal(cls_scores[level], head.retina_cls(cls))
        assert torch.equal(bbox_preds[level], head.retina_reg(reg))


@pytest.mark.parametrize('detector', DETECTORS)
def test_towers_have_their_own_bn_per_level_and_shared_convs(detector):
    head = make_head(detector)
    norms = [module for module in head.modules() if isinstance(module, MultiLevelBN)]
    assert [norm.num_levels for norm in norms] == [LEVELS, LEVELS]
    assert len([module for module in head.modules()
                if isinstance(module, nn.BatchNorm2d)]) == 2 * LEVELS


@pytest.mark.parametrize('num_feats', [4, 3])
def test_other_number_of_feature_maps_is_an_error(num_feats):
    message = (rf'AQDRetinaHead\.cls_convs\.0\.bn has num_levels={LEVELS}, but the head got '
               f'{num_feats} feature maps')
    with pytest.raises(ValueError, match=message):
        make_head('RetinaNet')(make_feats(num_feats))


def test_the_level_is_forgotten_after_a_forward():
    head = make_head('RetinaNet')
    head(make_feats())
    with pytest.raises(RuntimeError, match='without a pyramid level.*mmaqd.MultiLevelHead'):
        head.cls_convs[0](make_feats()[0])


def test_an_exception_inside_a_level_leaves_the_head_clean():
    head = build_calibrated('RetinaNet').bbox_head.eval()
    expected = head(make_feats())
    broken = make_feats()
    broken[2] = broken[2][:, :3]
    with pytest.raises(RuntimeError, match='channels'):
        head(broken)
    assert [module.level for module in head.modules()
            if isinstance(module, MultiLevelBN)] == [None, None]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1)  # in place: stale quantized weights would now be an error
        head.retina_cls.bias.add_(1)
    again = head(make_feats())
    torch.testing.assert_close([score - 1 for score in again[0]], expected[0])
    assert all(map(torch.equal, again[1], expected[1]))


class TestSharedWeights:
    """The weights of a conv are quantized once for all levels, and that changes no number."""

    CONVS = dict(RetinaNet=4, FCOS=5, ATSS=5)

    @pytest.fixture
    def calls(self, monkeypatch) -> Counter:
        return count_quantizations(monkeypatch, LIQWeightKernel, LIQActivationKernel)

    @pytest.mark.parametrize('detector', DETECTORS)
    def test_once_in_the_forward_and_once_in_the_backward_pass(self, detector, calls):
        head = build_calibrated(detector).bbox_head.train()
        convs = [module for module in head.modules() if isinstance(module, QuantConv2d)]
        assert len(convs) == self.CONVS[detector]
        calls.clear()
        outputs = head(make_feats())
        assert calls['LIQWeightKernel'] == len(convs)
        assert calls['LIQActivationKernel'] == len(convs) * LEVELS
        calls.clear()
        sum(each.sum() for kind in outputs for each in kind).backward()
        assert calls['LIQWeightKernel'] == len(convs)

    def test_same_outputs_and_gradients_as_without_sharing(self):
        head = build_calibrated('RetinaNet').bbox_head.train()
        results = []
        for outputs in (head(make_feats()), self._level_by_level(head, make_feats())):
            head.zero_grad()
            sum((each * each).sum() for kind in outputs for each in kind).backward()
            results.append((outputs, [parameter.grad.clone() for parameter in head.parameters()]))
        (shared, shared_grads), (plain, plain_grads) = results
        assert_equal_outputs(shared, plain)
        torch.testing.assert_close(shared_grads, plain_grads, rtol=1e-5, atol=1e-6)

    def test_a_step_of_the_optimizer_reaches_the_next_forward(self):
        head = build_calibrated('RetinaNet').bbox_head.train()
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        outputs = head(make_feats())
        sum((each * each).sum() for kind in outputs for each in kind).backward()
        optimizer.step()
        after = head(make_feats())
        assert_equal_outputs(after, self._level_by_level(head, make_feats()))
        assert not torch.equal(after[0][0], outputs[0][0])

    @staticmethod
    def _level_by_level(head: nn.Module, feats: list[Tensor]) -> tuple[list[Tensor], ...]:
        norms = [module for module in head.modules() if isinstance(module, MultiLevelBN)]
        outputs = []
        for level, feat in enumerate(feats):
            for norm in norms:
                norm.level = level
            outputs.append(head.forward_single(feat))
        for norm in norms:
            norm.level = None
        return tuple(map(list, zip(*outputs)))


class TestFurtherHead:
    """The mixin in front of an upstream head that the package knows nothing about."""

    CFG = dict(
        num_classes=NUM_CLASSES,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=1,
        reg_max=4,
        norm_cfg=MULTI_LEVEL_BN,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0))

    def test_with_a_plain_norm_it_is_the_upstream_head(self):
        cfg = ConfigDict({**self.CFG, 'norm_cfg': dict(type='BN')})
        ours, theirs = (scramble(kind(**cfg)) for kind in (AQDGFLHead, GFLHead))
        assert_equal_outputs(ours(make_feats()), theirs(make_feats()))

    def test_it_trains_in_a_low_bit_detector_of_its_own_kind(self):
        cfg = model_cfg('ATSS', 4)
        cfg.update(detector='GFL', bbox_head=dict(type=AQDGFLHead, **self.CFG))
        cfg['quantization']['rules'][1:] = [
            dict(
                pattern='bbox_head.gfl_*',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=dict(bit_width=8))
        ]
        cfg['quantization']['weight_quantizer']['start'] = 'constant'
        cfg['quantization']['input_quantizer']['start'] = 'constant'
        model = build(cfg).train()
        loss(model, make_batch()).backward()
        norms = [module for module in model.bbox_head.modules() if isinstance(module, MultiLevelBN)]
        assert len(norms) == 2
        assert all(
            torch.isfinite(parameter.grad).all() for norm in norms
            for parameter in norm.parameters())

    def test_the_attributes_of_a_level_need_no_names(self):

        class Plain(MultiLevelHeadMixin, GFLHead):
            pass

        plain, named = (scramble(kind(**ConfigDict(self.CFG))) for kind in (Plain, AQDGFLHead))
        assert_equal_outputs(plain(make_feats()), named(make_feats()))
