"""Swapping layers that are no plain convs: linear layers, attention, other kinds of convs."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmcv.cnn.bricks import wrappers
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.models.backbones import SwinTransformer
from torch import Tensor, nn

from mmaqd.conversion import QuantizationPolicy, prepare, quantization_table
from mmaqd.conversion.convertible import TWINS
from mmaqd.layers import QuantConv2d, QuantLinear, QuantMultiheadAttention
from mmaqd.quantizers import calibrate

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, signed=True)
FLOAT = dict(weight_quantizer=None, input_quantizer=None)


def net(**layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def prepared(rules: list[dict] = [], **layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return prepare(net(**layers), WEIGHT, INPUT, rules)


def bits(model: nn.Module) -> dict[str, int]:
    return {row.module: row.weight_bits for row in quantization_table(model)}


def run(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


@pytest.mark.parametrize('layer', [
    nn.Conv2d(4, 4, 3), wrappers.Conv2d(4, 4, 3), Conv2dAdaptivePadding(4, 4, 3),
    nn.ConvTranspose2d(4, 4, 3), wrappers.ConvTranspose2d(4, 4, 3), nn.Linear(4, 4),
    wrappers.Linear(4, 4), DeformConv2dPack(4, 4, 3), ModulatedDeformConv2dPack(4, 4, 3)
], ids=lambda each: f'{type(each).__module__.split(".")[0]}-{type(each).__name__}')  # yapf: disable
def test_each_kind_becomes_its_twin_with_the_same_parameters(layer: nn.Module) -> None:
    before = dict(layer.named_parameters())
    model = prepared(layer=layer)
    assert type(model.layer) is TWINS[type(layer)]
    after = dict(model.layer.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert model.layer.weight_quantizer.name == 'layer.weight_quantizer'
    assert bits(model)['layer'] == 4


@pytest.mark.parametrize('kind', TWINS, ids=lambda kind: f'{kind.__module__}.{kind.__name__}')
def test_a_twin_goes_by_the_names_by_which_its_float_layer_is_initialized(kind: type) -> None:
    """MMEngine's ``init_cfg`` compares names, of a layer's class and of its bases."""
    names = {kind.__name__, *(base.__name__ for base in kind.__bases__)}
    if kind is nn.modules.linear.NonDynamicallyQuantizableLinear:
        names.remove(kind.__name__)  # Of torch's own attention, which initializes it itself.
    assert names - {'Module'} <= {base.__name__ for base in TWINS[kind].__bases__}


def test_the_conv_of_the_offsets_is_a_layer_of_its_own() -> None:
    rules = [dict(pattern='*.conv_offset', weight_quantizer=dict(bit_width=8))]
    model = prepared(rules, dcn=DeformConv2dPack(4, 4, 3))
    assert type(model.dcn.conv_offset) is QuantConv2d
    assert bits(model) == {'dcn': 4, 'dcn.conv_offset': 8}
    model = prepared([dict(pattern='*.conv_offset', **FLOAT)], dcn=DeformConv2dPack(4, 4, 3))
    assert type(model.dcn.conv_offset) is nn.Conv2d


def test_a_deformable_conv_in_float_with_a_quantized_conv_of_offsets() -> None:
    model = prepared([dict(pattern='dcn', **FLOAT)], dcn=DeformConv2dPack(4, 4, 3))
    assert type(model.dcn) is DeformConv2dPack and bits(model) == {'dcn': 32, 'dcn.conv_offset': 4}


def test_rules_that_left_other_layers_in_float_still_do() -> None:
    layers = dict(
        fc=nn.Linear(4, 4), up=nn.ConvTranspose2d(4, 4, 2), attention=nn.MultiheadAttention(4, 2))
    rules = [dict(module_type=['Linear', 'ConvTranspose2d', 'MultiheadAttention'], **FLOAT)]
    by_name = [dict(pattern=name, **FLOAT)
               for name in ('fc', 'up', 'attention', 'attention.out_proj')]  # yapf: disable
    for each in (rules, by_name):
        model = prepared(each, conv=nn.Conv2d(4, 4, 1), **layers)
        assert all(model.get_submodule(name) is layer for name, layer in layers.items())
        assert type(model.conv) is QuantConv2d


def test_per_channel_intervals_of_a_grouped_transposed_conv_name_the_module() -> None:
    layer = nn.ConvTranspose2d(4, 4, 2, groups=2)
    with pytest.raises(ValueError, match='^up: QuantConvTranspose2d: .*axis must be None'):
        prepare(net(up=layer), dict(WEIGHT, axis=0), INPUT)


def test_a_shared_linear_layer_stays_one() -> None:
    layer = nn.Linear(4, 4)
    model = prepared(first=layer, second=net(fc=layer))
    assert type(model.first) is QuantLinear and model.first is model.second.fc


class TestNormalization:
    """LIQ's normalization of the weights, which a norm must take back."""

    def test_a_bias_speaks_against_it(self) -> None:
        model = prepared(plain=nn.Linear(4, 4, bias=False), biased=nn.Linear(4, 4))
        kernels = [layer.weight_quantizer.kernel for layer in (model.plain, model.biased)]
        assert [kernel.normalize for kernel in kernels] == [True, False]

    def test_so_it_is_with_attention(self) -> None:
        for has_bias in (True, False):
            attention = prepared(a=nn.MultiheadAttention(4, 2, bias=has_bias)).a
            kernels = [layer.weight_quantizer.kernel
                       for layer in (attention.q_proj, attention.out_proj)]  # yapf: disable
            assert [kernel.normalize for kernel in kernels] == [not has_bias] * 2

    def test_without_a_norm_behind_it_is_refused_with_a_rule(self) -> None:
        model = prepared(fc=nn.Linear(4, 4, bias=False), relu=nn.ReLU())
        with pytest.raises(ValueError, match="(?s)fc: LIQ.*no norm.*'normalize': False"):
            calibrate(model, [torch.rand(3, 4)], run, need_norms=True)

    @pytest.mark.parametrize('norm', [nn.LayerNorm(4), nn.BatchNorm1d(4)])
    def test_with_a_norm_behind_it_is_right(self, norm: nn.Module) -> None:
        model = prepared(fc=nn.Linear(4, 4, bias=False), norm=norm)
        assert calibrate(model, [torch.rand(3, 4)], run, need_norms=True) == 2

    def test_a_frozen_norm_behind_it_is_refused(self) -> None:

        class Frozen(nn.BatchNorm1d):

            def train(self, mode: bool = True) -> nn.Module:
                return super().train(False)

        model = prepared(fc=nn.Linear(4, 4, bias=False), norm=Frozen(4))
        with pytest.raises(ValueError, match='fc: .*norm behind it keeps its statistics'):
            calibrate(model, [torch.rand(3, 4)], run)


class TestAttention:
    """torch's attention reads the weight of its out_proj and calls it never; ours calls it."""

    @pytest.mark.parametrize('quantized', [['out_proj'], ['v_proj'], ['q_proj', 'out_proj']])
    def test_any_of_the_projections(self, quantized: list[str]) -> None:
        rules = [dict(pattern='*', **FLOAT)]
        rules += [dict(pattern=f'a.{name}', weight_quantizer=WEIGHT) for name in quantized]
        model = prepared(rules, a=nn.MultiheadAttention(4, 2))
        assert type(model.a) is QuantMultiheadAttention
        assert bits(model) == {
            f'a.{name}': 4 if name in quantized else 32
            for name in ('out_proj', 'q_proj', 'k_proj', 'v_proj')
        }

    def test_the_attention_of_mmcv_keeps_its_wrapper(self) -> None:
        model = prepared(a=MultiheadAttention(4, 2, batch_first=True))
        assert type(model.a) is MultiheadAttention
        assert type(model.a.attn) is QuantMultiheadAttention
        x = torch.rand(2, 3, 4)
        assert calibrate(model, [x], lambda model, x: model.a(x)) == 8
        assert model.a(x).shape == x.shape

    def test_a_rule_for_a_projection_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="pattern 'a.qkv_proj' matches no module"):
            prepared([dict(pattern='a.qkv_proj', **FLOAT)], a=nn.MultiheadAttention(4, 2))

    def test_rules_for_a_shared_attention_must_agree(self) -> None:
        shared = nn.MultiheadAttention(4, 2)
        with pytest.raises(ValueError, match=r'second\.a\.v_proj: this layer is shared with first'):
            prepared([dict(pattern='second.a.v_proj', **FLOAT)],
                     first=net(a=shared),
                     second=net(a=shared))
        model = prepared(first=net(a=shared), second=net(a=shared))
        assert model.first.a is model.second.a and len(bits(model)) == 4

    def test_a_class_of_somebodys_is_refused_with_its_out_proj(self) -> None:

        class Own(nn.MultiheadAttention):
            pass

        with pytest.raises(ValueError, match="(?s)^a: an Own can't be quantized.*a.out_proj"):
            prepared(a=Own(4, 2))
        with pytest.raises(ValueError, match=r'^a\.out_proj: .* without calling it, as Own does'):
            prepared([dict(pattern='a', **FLOAT)], a=Own(4, 2))

    def test_learned_keys_are_in_the_table_in_float(self) -> None:
        rows = quantization_table(prepared(a=nn.MultiheadAttention(4, 2, add_bias_kv=True)))
        found = {row.module: (row.weight_bits, row.num_weights) for row in rows}
        assert found['a'] == (32, 8) and found['a.q_proj'] == (4, 16)

    @pytest.mark.parametrize('part', ['linear1', 'self_attn.out_proj', 'self_attn.q_proj'])
    def test_the_fast_path_of_torch_reads_no_quantized_layer(self, part: str) -> None:
        rules = [dict(pattern='*', **FLOAT), dict(pattern=f'*{part}', weight_quantizer=WEIGHT)]
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        model, x = prepared(rules, layer=layer).eval(), torch.rand(2, 3, 4)
        calibrate(model, [x], run)
        with torch.no_grad():
            model.eval()
            fast = model(x)
        torch.testing.assert_close(fast, model.train()(x).detach())


class TestSwin:
    """A backbone of windows: linear layers, a patch embedding, tables of relative positions."""

    @staticmethod
    def make(**arguments: Any) -> nn.Module:
        torch.manual_seed(0)
        return SwinTransformer(
            pretrain_img_size=32,
            embed_dims=12,
            depths=(1, 1),
            num_heads=(1, 2),
            strides=(4, 2),
            out_indices=(0, 1),
            window_size=4,
            **arguments)

    def test_all_that_multiplies_is_quantized(self) -> None:
        model = prepare(nn.ModuleDict(dict(swin=self.make())), WEIGHT, INPUT)
        in_float = [name for name, width in bits(model).items() if width == 32]
        assert all(name.endswith('.w_msa') for name in in_float) and len(in_float) == 2
        x = torch.rand(1, 3, 32, 32)
        assert calibrate(model, [x], lambda model, x: model.swin(x)) > 0
        sum(each.square().mean() for each in model.swin(x)).backward()
        quantized = [p for name, p in model.named_parameters() if '_quantizer.' in name]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in quantized)


def test_a_rule_for_a_whole_is_one_for_its_parts() -> None:
    policy = QuantizationPolicy(WEIGHT, None, [
        dict(pattern='x.attn', weight_quantizer=dict(bit_width=2)),
        dict(pattern='*.v', weight_quantizer=None)
    ])
    names = ['x.attn', 'x.attn.q', 'x.attn.v', 'x.other']
    found = policy.assign(names, None, {'x.attn.q': 'x.attn', 'x.attn.v': 'x.attn'})
    widths = [each.weight_quantizer and each.weight_quantizer['bit_width']
              for each in found.values()]  # yapf: disable
    assert widths == [2, 2, None, 4]
