"""Swapping convs: what is swapped, what stays the same object, what is refused."""
from __future__ import annotations

from collections import OrderedDict
from importlib import import_module

import pytest
import torch
from mmcv.cnn import ConvAWS2d, ConvWS2d
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmcv.ops import ModulatedDeformConv2dPack, SAConv2d
from mmdet.models.dense_heads import RTMDetSepBNHead
from mmdet.models.dense_heads.tood_head import TaskDecomposition
from mmdet.models.layers import NormedLinear
from torch import nn
from torch.nn.utils import parametrize  # noqa: F401

from mmaqd.conversion import prepare, quantization_table
from mmaqd.conversion.prepare import refusals
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers.calibration import observing
from tests.helpers.detector import build, model_cfg, quantization_cfg

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)
FLOAT = dict(weight_quantizer=None, input_quantizer=None)


def make_net(**changes: nn.Module) -> nn.Sequential:
    """Two convs around a BN; ``changes`` replace or append layers by name."""
    layers = OrderedDict(
        stem=nn.Conv2d(3, 4, 3, bias=False),
        norm=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        conv=nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False))
    layers.update(changes)
    return nn.Sequential(layers)


class OwnAttention(nn.MultiheadAttention):
    """A class of somebody's, who may have changed anything."""


def parametrized(layer: nn.Module) -> nn.Module:
    """``layer`` with a weight that another module computes."""
    return nn.utils.parametrize.register_parametrization(layer, 'weight', nn.Identity())


def test_convs_are_swapped_in_place_and_keep_their_parameter_objects():
    model = make_net()
    before = dict(model.named_parameters())
    assert prepare(model, WEIGHT, INPUT) is model
    assert type(model.stem) is type(model.conv) is QuantConv2d
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert sorted(after.keys() - before.keys()) == [
        'conv.input_quantizer.interval', 'conv.weight_quantizer.interval',
        'stem.input_quantizer.interval', 'stem.weight_quantizer.interval'
    ]


def test_geometry_and_mode_are_kept():
    model = prepare(make_net().eval(), WEIGHT, INPUT)
    assert (model.conv.stride, model.conv.padding, model.conv.groups) == ((2, 2), (1, 1), 2)
    assert not model.conv.training
    x = torch.rand(1, 4, 8, 8)
    with observing(model):  # the quantizers pass on what they get, so the conv is that of torch
        out = model.conv(x)
    torch.testing.assert_close(
        out, nn.functional.conv2d(x, model.conv.weight, stride=2, padding=1, groups=2))


def test_conv_of_mmcv_is_swapped_too():
    model = prepare(make_net(conv=MMCVConv2d(4, 4, 1, bias=False)), WEIGHT, INPUT)
    assert type(model.conv) is QuantConv2d


def test_conv_with_only_one_role_quantized():
    model = prepare(make_net(), WEIGHT, INPUT, [dict(pattern='stem', input_quantizer=None)])
    assert model.stem.input_quantizer is None and model.stem.weight_quantizer.bit_width == 4


def test_float_by_rule_stays_the_very_same_module():
    model = make_net()
    stem = model.stem
    prepare(model, WEIGHT, INPUT, [dict(pattern='stem', **FLOAT)])
    assert model.stem is stem and type(model.conv) is QuantConv2d


def test_quantizers_carry_the_name_of_their_place():
    model = build(model_cfg('RetinaNet', 4))
    conv = model.backbone.layer2[0].conv1
    assert conv.weight_quantizer.name == 'backbone.layer2.0.conv1.weight_quantizer'
    assert conv.input_quantizer.name == 'backbone.layer2.0.conv1.input_quantizer'


def test_norms_with_1d_weights_are_no_business_of_the_policy():
    norms = dict(norm=nn.GroupNorm(2, 4), batch=nn.BatchNorm2d(4), prelu=nn.PReLU(4))
    model = prepare(make_net(**norms), WEIGHT, INPUT)
    assert all(model.get_submodule(name) is module for name, module in norms.items())
    with pytest.raises(ValueError, match='matches no module'):
        prepare(make_net(**norms), WEIGHT, INPUT, [dict(pattern='norm', **FLOAT)])


def test_per_channel_axis_takes_the_channels_of_each_conv():
    model = prepare(make_net(conv=nn.Conv2d(4, 6, 1, bias=False)), dict(WEIGHT, axis=0), INPUT)
    assert model.stem.weight_quantizer.interval.shape == (4, )
    assert model.conv.weight_quantizer.interval.shape == (6, )


class TestSharedConv:
    """A conv with two names is one conv."""

    @staticmethod
    def make_twins() -> nn.ModuleDict:
        conv = nn.Conv2d(4, 4, 1, bias=False)
        return nn.ModuleDict(dict(first=nn.Sequential(conv), second=nn.Sequential(conv)))

    def test_it_becomes_one_quantized_conv_under_both_names(self):
        model = prepare(self.make_twins(), WEIGHT, INPUT)
        assert type(model.first[0]) is QuantConv2d
        assert model.first[0] is model.second[0]
        assert len(quantization_table(model)) == 1

    def test_rules_for_both_names_agree(self):
        model = prepare(self.make_twins(), WEIGHT, INPUT,
                        [dict(pattern='*.0', weight_quantizer=dict(bit_width=2))])
        assert model.second[0].weight_quantizer.bit_width == 2

    @pytest.mark.parametrize('name', ['first', 'second'])
    @pytest.mark.parametrize('change', [
        pytest.param(dict(weight_quantizer=dict(bit_width=2)), id='other-bits'),
        pytest.param(FLOAT, id='float'),
    ])
    def test_rules_that_contradict_each_other_are_an_error(self, name, change):
        model = self.make_twins()
        with pytest.raises(ValueError, match=r'second\.0: this layer is shared'):
            prepare(model, WEIGHT, INPUT, [dict(pattern=f'{name}.0', **change)])

    def test_head_that_shares_convs_but_not_norms(self):
        head = RTMDetSepBNHead(
            num_classes=2,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            share_conv=True,
            anchor_generator=dict(type='mmdet.MlvlPointGenerator', offset=0, strides=[8, 16]),
            bbox_coder=dict(type='mmdet.DistancePointBBoxCoder'),
            norm_cfg=dict(type='BN'),
            act_cfg=dict(type='ReLU'),
            train_cfg=None,
            loss_cls=dict(type='mmdet.QualityFocalLoss'),
            loss_bbox=dict(type='mmdet.GIoULoss'))
        prepare(head, WEIGHT, INPUT,
                [dict(pattern='rtm_*', weight_quantizer=dict(bit_width=8, normalize=False))])
        first, second = (convs[0] for convs in head.cls_convs)
        assert type(first.conv) is QuantConv2d
        assert first.conv is second.conv and first.bn is not second.bn
        assert head.rtm_cls[0] is not head.rtm_cls[1]


class TestRefusals:
    """Nothing stays in float unnoticed."""

    OTHERS = [
        pytest.param(nn.Conv1d(4, 4, 1), id='conv1d'),
        pytest.param(nn.Conv3d(4, 4, 1), id='conv3d'),
        pytest.param(nn.Bilinear(4, 4, 4), id='bilinear'),
        pytest.param(QuantConv2d(4, 4, 1), id='quantized-already'),
    ]
    CONVERTIBLE = [
        pytest.param(nn.ConvTranspose2d(4, 4, 2), id='transposed-conv'),
        pytest.param(nn.Linear(4, 4), id='linear'),
        pytest.param(nn.MultiheadAttention(4, 2), id='attention'),
        pytest.param(ModulatedDeformConv2dPack(4, 4, 3), id='deformable-conv'),
    ]

    @pytest.mark.parametrize('layer', OTHERS)
    def test_module_that_cannot_be_quantized(self, layer):
        message = f"^extra: an? {type(layer).__name__} can't be quantized.*pattern='extra'"
        with pytest.raises(ValueError, match=message):
            prepare(make_net(extra=layer), WEIGHT, INPUT)

    @pytest.mark.parametrize('layer', [*OTHERS, *CONVERTIBLE])
    def test_unless_a_rule_leaves_it_in_float(self, layer):
        model = prepare(make_net(extra=layer), WEIGHT, INPUT, [dict(pattern='extra*', **FLOAT)])
        assert model.extra is layer and type(model.conv) is QuantConv2d

    @pytest.mark.parametrize('layer, reason', [
        (ConvWS2d(4, 4, 1), 'a ConvWS2d can.t be quantized: it standardizes its weights'),
        (ConvAWS2d(4, 4, 1), 'a ConvAWS2d can.t be quantized: it standardizes its weights'),
        (SAConv2d(4, 4, 3), 'a SAConv2d can.t be quantized: it makes two convolutions'),
        (NormedLinear(4, 4), 'a NormedLinear can.t be quantized: it normalizes its weights'),
    ])  # yapf: disable
    def test_layers_that_change_their_weights_themselves_say_why(self, layer, reason):
        with pytest.raises(ValueError, match=f'^extra: {reason}'):
            prepare(make_net(extra=layer), WEIGHT, INPUT)

    def test_a_refused_model_is_left_as_it_was(self):
        model = make_net(extra=nn.Conv1d(4, 4, 1))
        with pytest.raises(ValueError, match='extra'):
            prepare(model, WEIGHT, INPUT)
        assert type(model.stem) is nn.Conv2d

    def test_all_refusals_come_at_once_with_rules_that_end_them(self):
        layers = dict(
            fc=nn.Conv1d(4, 4, 1),
            up=nn.ConvTranspose1d(4, 4, 2),
            attention=OwnAttention(4, 2),
            head=nn.Conv1d(4, 2, 1),
            normed=nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
            made=parametrized(nn.Conv2d(4, 4, 1)))
        with pytest.raises(ValueError, match='^fc: a Conv1d') as error:
            prepare(make_net(**layers), WEIGHT, INPUT)
        text = str(error.value)
        assert all(name in text for name in ('up', 'attention', 'head', 'normed'))
        lines = [line for line in text.splitlines() if line.startswith('    dict(')]
        rules = [eval(line.strip().rstrip(',')) for line in lines]
        model = prepare(make_net(**layers), WEIGHT, INPUT, rules)
        assert all(model.get_submodule(name) is layer for name, layer in layers.items())
        assert type(model.conv) is type(model.stem) is QuantConv2d
        bits = {row.module: row.weight_bits for row in quantization_table(model)}
        assert all(bits[name] == 32 for name in layers), 'what stays in float is in the table'

    def test_a_weight_that_is_read_and_not_called(self):
        model = nn.ModuleDict(dict(decomposition=TaskDecomposition(8, 4)))
        conv = 'decomposition.reduction_conv.conv'
        rules = [dict(pattern='*layer_attention*', **FLOAT)]
        with pytest.raises(ValueError, match=f'^{conv}: .* read without calling it, as TaskDec'):
            prepare(model, WEIGHT, INPUT, rules)
        prepare(model, WEIGHT, INPUT, [*rules, dict(pattern=conv, **FLOAT)])
        assert type(model.get_submodule(conv)) is nn.Conv2d

    def test_a_wrapper_that_shows_the_weight_of_its_conv_is_no_layer(self):

        class Wrapper(nn.Module):

            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1, bias=False)

            @property
            def weight(self) -> nn.Parameter:
                return self.conv.weight

        model = prepare(make_net(extra=Wrapper()), WEIGHT, INPUT)
        assert type(model.extra.conv) is QuantConv2d
        assert [row.module for row in quantization_table(model)] == ['stem', 'conv', 'extra.conv']

    def test_a_layer_without_a_shape_yet(self):
        with pytest.raises(ValueError, match="^extra: a LazyConv2d can't be quantized"):
            prepare(make_net(extra=nn.LazyConv2d(4, 1)), WEIGHT, INPUT)

    @pytest.mark.parametrize('layer', [nn.Embedding(4, 4), nn.LayerNorm([4, 1, 1])])
    def test_look_ups_and_norms_need_no_rule(self, layer):
        model = prepare(make_net(extra=layer), WEIGHT, INPUT)
        assert model.extra is layer
        assert quantization_table(model)[-1].weight_bits == 32

    def test_a_conv_with_a_bias_is_not_normalized_and_that_is_said(self, monkeypatch):
        said = []
        monkeypatch.setattr(
            import_module('mmaqd.conversion.prepare'), 'print_log',
            lambda text, *_: said.append(text))
        model = prepare(make_net(head=nn.Conv2d(4, 2, 1)), WEIGHT, INPUT)
        kernels = [layer.weight_quantizer.kernel for layer in (model.stem, model.head)]
        assert [kernel.normalize for kernel in kernels] == [True, False]
        assert kernels[1].gradient_factor, 'as for every quantizer without normalization'
        assert len(said) == 1 and '1 layers are quantized without' in said[0] and 'head' in said[0]

    @pytest.mark.parametrize('normalize', [True, False])
    def test_unless_normalize_is_given(self, normalize):
        model = prepare(
            make_net(head=nn.Conv2d(4, 2, 1)), WEIGHT, INPUT,
            [dict(pattern='head', weight_quantizer=dict(normalize=normalize))])
        assert model.head.weight_quantizer.kernel.normalize is normalize

    def test_a_model_that_is_itself_a_conv_cannot_be_changed_in_place(self):
        with pytest.raises(ValueError, match='put it into a module'):
            prepare(nn.Conv2d(3, 4, 1, bias=False), WEIGHT, INPUT)

    @pytest.mark.parametrize('changes, error, message', [
        pytest.param(dict(bit_width=9), ValueError, 'integer from 1 to 8', id='bits-9'),
        pytest.param(dict(bit_width=0), ValueError, 'integer from 1 to 8', id='bits-0'),
        pytest.param(dict(bit_width='4'), ValueError, 'integer from 1 to 8', id='bits-string'),
        pytest.param(dict(bits=4), TypeError, r'unknown key\(s\) bits', id='unknown-key'),
        pytest.param(dict(type='LIQ'), KeyError, "got 'LIQ'", id='unknown-type'),
        pytest.param(dict(axis=1), ValueError, 'axis must be None', id='axis-1'),
    ])
    def test_bad_quantizer_names_the_module(self, changes, error, message):
        rules = [dict(pattern='conv', weight_quantizer={**WEIGHT, **changes})]
        with pytest.raises(error, match=f'conv: .*{message}'):
            prepare(make_net(), WEIGHT, INPUT, rules)


@pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS', 'ATSS'])
def test_preparing_a_built_detector_is_what_the_config_type_does(detector):
    by_hand = prepare(build(model_cfg(detector)), **quantization_cfg(detector, 3))
    by_config = build(model_cfg(detector, 3))
    assert quantization_table(by_hand) == quantization_table(by_config)


def test_refusals_are_those_that_prepare_raises():
    reads = TaskDecomposition(4, 2, 8)
    model = make_net(table=nn.Embedding(3, 4), odd=nn.Conv1d(1, 1, 1), reads=reads)
    reasons = refusals(model)
    assert set(reasons) == {'odd', 'reads.reduction_conv.conv'}
    assert "a Conv1d can't be quantized" in reasons['odd']
    assert 'read without calling it' in reasons['reads.reduction_conv.conv']
    with pytest.raises(ValueError, match="can't be quantized"):
        prepare(model, WEIGHT, INPUT)
    prepare(model, WEIGHT, INPUT, [dict(pattern=name, **FLOAT) for name in reasons])
    assert not refusals(make_net())
