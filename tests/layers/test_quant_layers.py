"""Every kind of quantized layer computes what the formulas of its quantizers say, and trains so."""
from __future__ import annotations

import copy
import math
import pickle
from typing import Callable, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops import (DeformConv2d, DeformConv2dPack, ModulatedDeformConv2d,
                      ModulatedDeformConv2dPack, deform_conv2d, modulated_deform_conv2d)
from torch import Tensor, nn

from mmaqd.conversion.convertible import TWINS
from mmaqd.layers import QuantConvTranspose2d, QuantLayer, QuantLinear
from mmaqd.quantizers import UninitializedIntervalError, calibrate, calibrating

BITS, N = 3, 7


def ste(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def slower(x: Tensor, factor: float) -> Tensor:
    """``x`` with its gradient times ``factor``."""
    return factor * x + (x - factor * x).detach()


def column(v: Tensor, w: Tensor) -> Tensor:
    return v.view(-1, *[1] * (w.dim() - 1)) if v.dim() else v


def liq_weight(w: Tensor, v: Tensor) -> Tensor:
    v = column(slower(v, 1 / math.sqrt(w.numel() / v.numel() * N)), w)
    return v * (2 * ste(N * ((w / v).clamp(-1, 1) + 1) / 2) / N - 1)


def liq_input(x: Tensor, v: Tensor) -> Tensor:
    return v * ste(N * (x / v).clamp(0, 1)) / N


def liq_signed(x: Tensor, v: Tensor) -> Tensor:
    return v * ste(3 * (x / v).clamp(-1, 1)) / 3


def lsq_weight(w: Tensor, s: Tensor) -> Tensor:
    s = column(slower(s, 1 / math.sqrt(w.numel() / s.numel() * 3)), w)
    return s * ste((w / s).clamp(-4, 3))


def lsq_input(x: Tensor, s: Tensor) -> Tensor:
    s = slower(s, 1 / math.sqrt(x[0].numel() * N))
    return s * ste((x / s).clamp(0, N))


def lsq_plus_input(x: Tensor, s: Tensor, beta: Tensor) -> Tensor:
    s, beta = (slower(each, 1 / math.sqrt(x[0].numel() * N)) for each in (s, beta))
    return s * ste(((x - beta) / s).clamp(0, N)) + beta


def dorefa_weight(w: Tensor) -> Tensor:
    t = torch.tanh(w)
    return 2 * ste(N * (t / t.abs().max() + 1) / 2) / N - 1


def pact_input(x: Tensor, alpha: Tensor) -> Tensor:
    y = torch.where(x < alpha, x.clamp(min=0), alpha)
    return y + (alpha * torch.round(N * y / alpha) / N - y).detach()


def dorefa_input(x: Tensor) -> Tensor:
    return ste(N * x.clamp(0, 1)) / N


class Family(NamedTuple):
    weight: dict
    inputs: dict
    weight_reference: Callable
    input_reference: Callable
    lowest: float = 0.0


def cfg(name: str, value: float | None = 0.9, **options: object) -> dict:
    start = {} if value is None else dict(start='constant', start_value=value)
    return dict(type=f'mmaqd.{name}Quantizer', bit_width=BITS, **start, **options)


LIQ = cfg('LIQWeight', 0.3, normalize=False)
LSQ = cfg('LSQWeight', 0.1)
FAMILIES = {
    'LIQ': Family(LIQ, cfg('LIQActivation'), liq_weight, liq_input),
    'LIQ-signed': Family(LIQ, cfg('LIQActivation', signed=True), liq_weight, liq_signed, -1.0),
    'LIQ-channels': Family(dict(LIQ, axis=0), cfg('LIQActivation'), liq_weight, liq_input),
    'LSQ': Family(LSQ, cfg('LSQActivation', 0.15), lsq_weight, lsq_input),
    'LSQ+': Family(dict(LSQ, axis=0), cfg('LSQPlusActivation', 0.25), lsq_weight, lsq_plus_input,
                   -1.0),
    'PACT': Family(cfg('DoReFaWeight', None), cfg('PACTActivation'), dorefa_weight,
                   pact_input),
    'DoReFa': Family(cfg('DoReFaWeight', None), cfg('DoReFaActivation', None), dorefa_weight,
                     dorefa_input),
}  # yapf: disable


class Kind(NamedTuple):
    """A float layer, its input and what it computes of an input and a weight."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    compute: Callable
    more: tuple[tuple[int, ...], ...] = ()


def linear(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return x @ w.t() + (0 if layer.bias is None else layer.bias)


def adaptive(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor) -> Tensor:
    stride = layer.stride[0]
    height, width = (
        max((math.ceil(size / stride) - 1) * stride + 3 - size, 0) for size in x.shape[2:])
    x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    return F.conv2d(x, w, layer.bias, layer.stride)


def transposed(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w, layer.bias, 2, 1, 1, layer.groups)


def deformed(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor, offset: Tensor) -> Tensor:
    return deform_conv2d(x, offset, w, (1, 1), (1, 1))


def packed(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return deform_conv2d(x, layer.conv_offset(raw), w, (1, 1), (1, 1))


def modulated(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor, offset: Tensor,
              mask: Tensor) -> Tensor:
    return modulated_deform_conv2d(x, offset, mask, w, layer.bias, 1, 1, 1, 1, 1)


def packed_modulated(layer: nn.Module, raw: Tensor, x: Tensor, w: Tensor) -> Tensor:
    both = layer.conv_offset(raw)
    return modulated_deform_conv2d(x, both[:, :18], both[:, 18:].sigmoid(), w, layer.bias, 1, 1, 1,
                                   1, 1)


IMAGE, OFFSET, MASK = (2, 4, 5, 6), (2, 18, 5, 6), (2, 9, 5, 6)
KINDS = {
    'linear-2d': Kind(lambda: nn.Linear(5, 4), (6, 5), linear),
    'linear-3d': Kind(lambda: nn.Linear(5, 4, bias=False), (2, 3, 5), linear),
    'linear-4d': Kind(lambda: nn.Linear(5, 4), (2, 3, 2, 5), linear),
    'adaptive': Kind(lambda: Conv2dAdaptivePadding(4, 4, 3), IMAGE, adaptive),
    'adaptive-strided': Kind(lambda: Conv2dAdaptivePadding(4, 4, 3, 2), IMAGE, adaptive),
    'transposed': Kind(lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), IMAGE, transposed),
    'deformable': Kind(lambda: DeformConv2d(4, 6, 3, padding=1), IMAGE, deformed, (OFFSET, )),
    'DCN': Kind(lambda: DeformConv2dPack(4, 6, 3, padding=1), IMAGE, packed),
    'modulated': Kind(lambda: ModulatedDeformConv2d(4, 6, 3, padding=1), IMAGE, modulated,
                      (OFFSET, MASK)),
    'DCNv2': Kind(lambda: ModulatedDeformConv2dPack(4, 6, 3, padding=1), IMAGE, packed_modulated),
}  # yapf: disable
kinds = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS.keys())
families = pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES.keys())


def make(kind: Kind, weight: dict | None = None, inputs: dict | None = None) -> QuantLayer:
    torch.manual_seed(0)
    layer = kind.make().double()
    if hasattr(layer, 'conv_offset'):  # which starts as zeros
        nn.init.normal_(layer.conv_offset.weight, std=0.1)
    return TWINS[type(layer)].from_float(layer, weight, inputs).double()


def tensors(kind: Kind, lowest: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(kind.shape, generator=generator, dtype=torch.double) * (1.3 - lowest) + lowest
    more = [torch.rand(shape, generator=generator, dtype=torch.double) for shape in kind.more]
    return [each.requires_grad_() for each in (x, *more)]


def gradients(out: Tensor, layer: nn.Module, operands: list[Tensor]) -> list[Tensor]:
    out.square().sum().backward()
    return [each.grad for each in (*operands, *layer.parameters())]


def reference(layer: QuantLayer, kind: Kind, family: Family, operands: list[Tensor]) -> Tensor:
    x, *more = operands
    weight = layer.weight
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    w = family.weight_reference(
        weight.transpose(0, 1) if is_transposed else weight,
        *layer.weight_quantizer.learned_parameters)
    x_q = family.input_reference(x, *layer.input_quantizer.learned_parameters)
    return kind.compute(layer, x, x_q, w.transpose(0, 1) if is_transposed else w, *more)


@families
@kinds
def test_forward_and_all_gradients(kind: Kind, family: Family) -> None:
    layer, twin = (make(kind, family.weight, family.inputs) for _ in range(2))
    operands, others = (tensors(kind, family.lowest) for _ in range(2))
    out, expected = layer(*operands), reference(twin, kind, family, others)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    for found, wanted in zip(gradients(out, layer, operands), gradients(expected, twin, others)):
        assert found is not None and found.abs().sum() > 0
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


@kinds
def test_without_quantizers_it_is_the_float_layer(kind: Kind) -> None:
    layer, operands = make(kind), tensors(kind)
    torch.manual_seed(0)
    expected = kind.compute(layer, operands[0], operands[0], layer.weight, *operands[1:])
    torch.testing.assert_close(layer(*operands), expected, rtol=1e-9, atol=1e-12)


@kinds
@pytest.mark.parametrize('roles', [('weight_quantizer', ), ('input_quantizer', )])
def test_one_role_alone(kind: Kind, roles: tuple[str, ...]) -> None:
    family = FAMILIES['LIQ']
    cfgs = dict(weight_quantizer=family.weight, input_quantizer=family.inputs)
    layer = make(kind, *(cfgs[role] if role in roles else None for role in cfgs))
    x, *more = tensors(kind)
    x_q = layer.input_quantizer(x) if layer.input_quantizer else x
    weight = layer.weight
    if layer.weight_quantizer:
        weight = layer.weight_quantizer(weight)
    torch.testing.assert_close(layer(x, *more), kind.compute(layer, x, x_q, weight, *more))


@kinds
def test_the_twin_has_the_parameters_of_the_float_layer(kind: Kind) -> None:
    float_layer = kind.make()
    layer = TWINS[type(float_layer)].from_float(float_layer.eval(), LIQ, cfg('LIQActivation'))
    own = dict(layer.named_parameters())
    assert all(own[name] is each for name, each in float_layer.named_parameters())
    assert not any(module.training for module in layer.modules())
    assert not hasattr(float_layer, 'weight_quantizer'), 'the float layer stays as it was'


@kinds
def test_uncalibrated_then_calibrated_then_saved(kind: Kind) -> None:
    free = {key: value for key, value in LIQ.items() if not key.startswith('start')}
    inputs = dict(type='mmaqd.LIQActivationQuantizer', bit_width=BITS)
    layer, operands = make(kind, free, inputs), tensors(kind)
    with pytest.raises(UninitializedIntervalError, match='never initialized'):
        layer(*operands)
    with calibrating(layer) as pending:
        expected = kind.compute(layer, operands[0], operands[0], layer.weight, *operands[1:])
        torch.testing.assert_close(layer(*operands), expected)  # as in float
    assert len(pending) == 2
    layer.eval()
    copies = [make(kind, free, inputs).eval(), copy.deepcopy(layer)]
    copies[0].load_state_dict(layer.state_dict())
    if type(layer).__name__ == 'QuantLinear':
        copies.append(pickle.loads(pickle.dumps(layer)))
    with torch.no_grad():
        found = layer(*operands)
        assert (found - expected).abs().max() > 0
        assert all(torch.equal(each(*operands), found) for each in copies)


@kinds
def test_evaluation_keeps_the_weights_until_they_change(kind: Kind) -> None:
    family = FAMILIES['LIQ']
    layer, operands = make(kind, family.weight, family.inputs), tensors(kind)
    trained = layer(*operands).detach()
    with torch.no_grad():
        layer.eval()
        for _ in range(2):
            torch.testing.assert_close(layer(*operands), trained)
        kept = layer._kept[2]
        assert kept is not None and layer._kept[2] is kept
        layer.weight.data.neg_()
        changed = layer(*operands)
    assert not torch.equal(changed, trained)
    torch.testing.assert_close(changed, layer.train()(*operands).detach())


@kinds
def test_weights_shared_over_calls_are_quantized_once(kind: Kind, monkeypatch) -> None:
    family = FAMILIES['LIQ']
    layer, twin = (make(kind, family.weight, family.inputs) for _ in range(2))
    operands, others = (tensors(kind) for _ in range(2))
    with layer.quantize_weight_once():
        (layer(*operands) + 2 * layer(*operands)).square().sum().backward()
    (twin(*others) + 2 * twin(*others)).square().sum().backward()
    for found, wanted in zip(layer.parameters(), twin.parameters()):
        torch.testing.assert_close(found.grad, wanted.grad)


class TestLinear:
    """What a linear layer alone does."""

    def test_no_rows(self) -> None:
        layer = make(KINDS['linear-2d'], LIQ, cfg('LIQActivation'))
        x = torch.rand(0, 5, dtype=torch.double, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        assert out.shape == (0, 4) and x.grad.shape == (0, 5)
        assert not layer.weight.grad.any() and not layer.bias.grad.any()

    def test_it_equals_the_quantizers_and_a_linear_layer_to_the_bit(self) -> None:
        layer = make(KINDS['linear-2d'], LIQ, cfg('LIQActivation')).float()
        x = torch.rand(7, 5)
        expected = F.linear(
            layer.input_quantizer(x), layer.weight_quantizer(layer.weight), layer.bias)
        assert torch.equal(layer(x), expected)

    def test_it_saves_nothing_but_its_input_and_parameters(self) -> None:
        layer = make(KINDS['linear-2d'], LIQ, cfg('LIQActivation'))
        x, saved = tensors(KINDS['linear-2d'])[0], []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            layer(x)
        known = {each.data_ptr() for each in (x, *layer.parameters())}
        assert {each.data_ptr() for each in saved} <= known

    @pytest.mark.parametrize('kind', ['linear-2d', 'linear-3d', 'linear-4d'])
    def test_what_follows_may_work_in_place(self, kind: str) -> None:
        results = []
        for inplace in (False, True):
            layer, x = make(KINDS[kind], LIQ, cfg('LIQActivation')), tensors(KINDS[kind])[0]
            results.append(gradients(F.relu(layer(x), inplace=inplace), layer, [x]))
        assert all(torch.equal(*pair) for pair in zip(*results))

    def test_a_single_row(self) -> None:
        layer = make(KINDS['linear-2d'], LIQ, cfg('LIQActivation'))
        x = torch.rand(5, dtype=torch.double)
        torch.testing.assert_close(layer(x), layer(x[None])[0])

    def test_half_precision(self) -> None:
        layer = make(KINDS['linear-3d'], LIQ, cfg('LIQActivation')).float()
        x = torch.rand(2, 3, 5, requires_grad=True)
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(x)
        out.float().sum().backward()
        assert out.dtype == torch.bfloat16 and x.grad.dtype == torch.float32
        torch.testing.assert_close(out.float(), layer(x), rtol=0.02, atol=0.02)

    def test_compiles_without_a_graph_break(self) -> None:
        layer = make(KINDS['linear-3d'], LIQ, cfg('LIQActivation')).float()
        x = torch.rand(2, 3, 5)
        expected = layer(x)
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(x), expected)

    def test_by_type_from_a_config(self) -> None:
        from mmaqd.registry import MODELS
        layer = MODELS.build(
            dict(type='mmaqd.QuantLinear', in_features=5, out_features=4, weight_quantizer=LIQ))
        assert type(layer) is QuantLinear and layer.weight_quantizer.bit_width == BITS


class TestTransposed:
    """What a transposed conv alone does."""

    def test_groups_and_one_interval_for_each_channel(self) -> None:
        with pytest.raises(ValueError, match='axis must be None.*module_type'):
            QuantConvTranspose2d(4, 4, 2, groups=2, weight_quantizer=dict(LIQ, axis=0))
        QuantConvTranspose2d(4, 4, 2, groups=2, weight_quantizer=LIQ)

    def test_size_of_the_output(self) -> None:
        layer = QuantConvTranspose2d(4, 6, 3, 2, 1, weight_quantizer=LIQ)
        x = torch.rand(1, 4, 5, 5)
        for size in (9, 10):
            expected = nn.ConvTranspose2d.forward(layer, x, [size, size])
            assert layer(x, output_size=[size, size]).shape == expected.shape

    def test_intervals_start_channel_by_channel(self) -> None:
        layer = QuantConvTranspose2d(
            2, 3, 2, weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=3,
                                           normalize=False, axis=0, start='max'))  # yapf: disable
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.0, 10, 100]).view(1, 3, 1, 1).expand(2, 3, 2, 2))
        calibrate(layer, [torch.rand(1, 2, 2, 2)], run=lambda model, x: model(x))
        torch.testing.assert_close(layer.weight_quantizer.interval.data, torch.tensor([0.8, 8, 80]))
