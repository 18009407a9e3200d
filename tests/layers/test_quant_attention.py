"""Attention with quantized projections: torch's own in float, and its projections' quantizers."""
from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaqd.layers import PROJECTIONS, QuantLinear, QuantMultiheadAttention
from mmaqd.quantizers import calibrating

WEIGHT = dict(
    type='mmaqd.LIQWeightQuantizer',
    bit_width=4,
    normalize=False,
    start='constant',
    start_value=0.3)
INPUT = dict(
    type='mmaqd.LIQActivationQuantizer',
    bit_width=4,
    signed=True,
    start='constant',
    start_value=1.5)
L, S, B, E, HEADS = 5, 7, 3, 8, 2

VARIANTS = {
    'plain': {},
    'batch-first': dict(batch_first=True),
    'without-bias': dict(bias=False),
    'other-sizes': dict(kdim=6, vdim=4),
    'learned-key': dict(add_bias_kv=True),
    'zero-key': dict(add_zero_attn=True),
    'both-keys': dict(add_bias_kv=True, add_zero_attn=True, batch_first=True),
}
variants = pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS.keys())


def make(options: dict) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(E, HEADS, **options).double()
    for name, parameter in attention.named_parameters():
        if 'bias' in name:  # most of them start as zeros
            nn.init.normal_(parameter, std=0.2)
    return attention


def operands(options: dict, batched: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = (L, E), (S, options.get('kdim', E)), (S, options.get('vdim', E))
    tensors = [
        torch.randn(
            (length, B, size) if batched else (length, size),
            generator=generator,
            dtype=torch.double) for length, size in sizes
    ]
    if batched and options.get('batch_first'):
        tensors = [each.transpose(0, 1).contiguous() for each in tensors]
    return [each.requires_grad_() for each in tensors]


def masks() -> dict[str, dict]:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.rand(L, S, generator=generator) < 0.3
    hidden[:, 0] = False
    of_heads = hidden.repeat(B * HEADS, 1, 1)
    of_heads[0, 0, 1:] = True
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1, 4:] = True
    scores = torch.randn(L, S, generator=generator, dtype=torch.double)
    return {
        'none': {},
        'bool': dict(attn_mask=hidden),
        'heads': dict(attn_mask=of_heads),
        'float': dict(attn_mask=scores),
        'padding': dict(key_padding_mask=padding),
        'both': dict(attn_mask=hidden, key_padding_mask=padding),
    }


def compare(found: tuple, expected: tuple) -> None:
    assert (found[1] is None) == (expected[1] is None)
    for pair in zip(found, expected):
        if pair[0] is not None:
            torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-12)


@variants
@pytest.mark.parametrize('mask', masks().values(), ids=masks().keys())
@pytest.mark.parametrize('need_weights', [True, False])
def test_in_float_it_is_the_attention_of_torch(options, mask, need_weights) -> None:
    float_attention = make(options)
    attention = QuantMultiheadAttention.from_float(make(options))
    both = []
    for module in (attention, float_attention):
        inputs = operands(options)
        out = module(*inputs, need_weights=need_weights, **mask)
        out[0].square().sum().backward()
        both.append((out, [each.grad for each in (*inputs, *module.parameters())]))
    compare(both[0][0], both[1][0])
    for found, expected in zip(both[0][1], both[1][1]):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


@variants
def test_one_sample_and_weights_of_each_head(options) -> None:
    attention = QuantMultiheadAttention.from_float(make(options))
    padding = torch.arange(S) > 4
    for batched, mask in ((True, None), (False, padding)):
        inputs = operands(options, batched)
        arguments = dict(average_attn_weights=False, key_padding_mask=mask)
        compare(attention(*inputs, **arguments), make(options)(*inputs, **arguments))


def test_causal_masks() -> None:
    attention, inputs = QuantMultiheadAttention.from_float(make({})), operands({})
    causal = torch.ones(L, L, dtype=torch.bool).triu(1)
    own = (inputs[0], ) * 3
    for need_weights in (True, False):
        arguments = dict(attn_mask=causal, is_causal=True, need_weights=need_weights)
        compare(attention(*own, **arguments), make({})(*own, **arguments))
    with pytest.raises(ValueError, match='give attn_mask'):
        attention(*own, is_causal=True)


@pytest.mark.parametrize('mask', [
    dict(attn_mask=torch.zeros(S)), dict(key_padding_mask=torch.zeros(B, 1, S))])  # yapf: disable
def test_masks_of_a_wrong_shape(mask) -> None:
    with pytest.raises(ValueError, match='mask must be'):
        QuantMultiheadAttention.from_float(make({}))(*operands({}), **mask)


def test_dropout_as_torch_draws_it() -> None:
    options = dict(dropout=0.5)
    attention, inputs = QuantMultiheadAttention.from_float(make(options)), operands({})
    torch.manual_seed(3)
    out, weights = attention(*inputs, average_attn_weights=False)
    zeros = (weights == 0).double().mean()
    assert 0.3 < zeros < 0.7
    assert not torch.equal(attention(*inputs)[0], out)
    attention.eval()
    compare(attention(*inputs), make({})(*inputs))


def quantized(options: dict, axis: int | None = None) -> QuantMultiheadAttention:
    attention = QuantMultiheadAttention.from_float(make(options))
    for name in PROJECTIONS:
        attention.quantize_projection(name, dict(WEIGHT, axis=axis), INPUT)
    attention.out_proj = QuantLinear.from_float(attention.out_proj, dict(WEIGHT, axis=axis), INPUT)
    return attention.double()


def ste(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def reference(attention: QuantMultiheadAttention, inputs: list[Tensor]) -> Tensor:
    """Single formulas of LIQ at 4 bits around the formula of attention."""

    def q_input(x: Tensor, layer: nn.Module) -> Tensor:
        v = layer.input_quantizer.interval
        return v * ste(7 * (x / v).clamp(-1, 1)) / 7

    def q_weight(w: Tensor, layer: nn.Module) -> Tensor:
        v = layer.weight_quantizer.interval
        factor = 1 / math.sqrt(w.numel() / v.numel() * 15)
        v = factor * v + (v - factor * v).detach()
        v = v[:, None] if v.dim() else v
        return v * (2 * ste(15 * ((w / v).clamp(-1, 1) + 1) / 2) / 15 - 1)

    weights = attention.in_proj_weight.chunk(3)
    biases = attention.in_proj_bias.chunk(3)
    q, k, v = (F.linear(q_input(x, layer), q_weight(w, layer),
                        b).view(*x.shape[:2], HEADS, E // HEADS)
               for x, w, b, layer in zip(inputs, weights, biases, (attention.q_proj,
                                                                   attention.k_proj,
                                                                   attention.v_proj)))
    scores = torch.einsum('lbhe,sbhe->bhls', q, k) / math.sqrt(E // HEADS)
    mixed = torch.einsum('bhls,sbhe->lbhe', scores.softmax(-1), v).reshape(L, B, E)
    out = attention.out_proj
    return F.linear(q_input(mixed, out), q_weight(out.weight, out), out.bias)


@pytest.mark.parametrize('axis', [None, 0])
def test_quantized_projections_forward_and_all_gradients(axis: int | None) -> None:
    results = []
    for compute in (lambda m, x: m(*x)[0], reference):
        attention, inputs = quantized({}, axis), operands({})
        out = compute(attention, inputs)
        out.square().sum().backward()
        names, parameters = zip(*attention.named_parameters())
        results.append([out, *(each.grad for each in (*inputs, *parameters))])
    for name, found, expected in zip(('out', 'query', 'key', 'value', *names), *results):
        assert found is not None and found.abs().sum() > 0, name
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_parameters_are_those_of_the_float_attention() -> None:
    float_attention = make({})
    attention = QuantMultiheadAttention.from_float(float_attention)
    assert attention.in_proj_weight is float_attention.in_proj_weight
    assert attention.state_dict().keys() == float_attention.state_dict().keys()
    assert type(float_attention) is nn.MultiheadAttention
    assert set(dict(float_attention.named_children())) == {'out_proj'}


def test_copies_have_their_own_weights() -> None:
    attention, inputs = quantized({}).eval(), operands({})
    for copied in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        torch.testing.assert_close(copied(*inputs), attention(*inputs))
        with torch.no_grad():
            copied.in_proj_weight.zero_()
        assert copied.q_proj.weight.abs().sum() == 0 < attention.q_proj.weight.abs().sum()


def test_moving_it_moves_what_the_projections_see() -> None:
    attention = quantized({}).to(torch.float32)
    assert attention.k_proj.weight.dtype == torch.float32
    assert attention.to('meta').v_proj.weight.device.type == 'meta'


@variants
def test_calibration_reaches_all_four(options) -> None:
    options = dict(options)
    attention = QuantMultiheadAttention.from_float(make(options))
    free = [{key: value for key, value in each.items() if not key.startswith('start')}
            for each in (WEIGHT, INPUT)]  # yapf: disable
    for name in PROJECTIONS:
        attention.quantize_projection(name, *free)
    attention.out_proj = QuantLinear.from_float(attention.out_proj, *free)
    with calibrating(attention) as pending:
        compare(attention(*operands(options)), make(options)(*operands(options)))
    assert len(pending) == 8
    intervals = [each.interval.item() for each in pending]
    assert all(math.isfinite(each) and each > 0 for each in intervals)
    assert len(set(intervals)) == 8, 'each projection has its own'


def test_evaluation_keeps_quantized_weights_until_they_change() -> None:
    attention, inputs = quantized({}).eval(), operands({})
    with torch.no_grad():
        first, second = attention(*inputs)[0], attention(*inputs)[0]
        assert torch.equal(first, second) and attention.q_proj._kept[2] is not None
        attention.in_proj_weight.neg_()
        assert not torch.allclose(attention(*inputs)[0], first)
