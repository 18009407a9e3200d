"""Integer graphs of small detectors: exact against Python's integers, close to what was trained."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmaqd.export import AccumulatorOverflow, IntegerNetwork, lower_detector
from mmaqd.export.graph import Codes, IntegerGraph, Requantize
from mmaqd.export.onnx import to_onnx, with_edges
from mmaqd.export.onnx.packed import pack
from mmaqd.export.rules import UnsupportedOperator
from tests.helpers.engines import ENGINES, assert_same, need, reference, run_engine
from tests.helpers.integer_reference import run
from tests.helpers.networks import TinyDetector, calibrated, image, inputs, normalized, weights

FAMILIES = {
    'signed_liq': (dict(family='LIQ'), dict(family='LIQ', signed=True)),
    'signed_lsq': (dict(family='LSQ'), dict(family='LSQ', signed=True)),
    'liq': (dict(family='LIQ'), dict(family='LIQ')),
    'liq_per_channel': (dict(family='LIQ', axis=0, normalize=False), dict(family='LIQ')),
    'lsq': (dict(family='LSQ'), dict(family='LSQ')),
    'lsq_plus': (dict(family='LSQPlus', axis=0), dict(family='LSQPlus')),
    'pact': (dict(family='DoReFa'), dict(family='PACT', start='max')),
    'dorefa': (dict(family='DoReFa'), dict(family='DoReFa', clip=2.0)),
}


def detector(family: str = 'liq',
             weight_bits: int = 4,
             input_bits: int = 4,
             gamma: float = 0.3,
             seed: int = 0,
             **options: object) -> nn.Module:
    torch.manual_seed(seed)
    weight, input_ = FAMILIES[family]
    model = TinyDetector(weights(weight_bits, **weight), inputs(input_bits, **input_), **options)
    return calibrated(model, image(seed), gamma)


def lowered(model: nn.Module, **options: object) -> IntegerGraph:
    return lower_detector(model, [normalized(image(0))], **options)


def assert_exact(graph: IntegerGraph, images: torch.Tensor) -> None:
    """The twin gives what Python's integers give, on every edge."""
    found, expected = IntegerNetwork(graph).run(images), run(graph, images.numpy())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('bits', [2, 4, 8])
def test_the_twin_is_exact_for_every_family(family: str, bits: int) -> None:
    assert_exact(lowered(detector(family, bits, bits)), image(1))


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(FAMILIES)), st.integers(2, 8), st.integers(2, 8),
    st.sampled_from([0.0, 0.3, 1.5]), st.sampled_from([4, 8, 12]), st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]), st.integers(0, 10**6))
def test_the_twin_is_exact_on_random_networks(family: str, weight_bits: int, input_bits: int,
                                              gamma: float, width: int, groups: int, dilation: int,
                                              seed: int) -> None:
    model = detector(
        family, weight_bits, input_bits, gamma, seed, width=width, groups=groups, dilation=dilation)
    assert_exact(lowered(model), image(seed + 1, 20, 28))


@pytest.mark.parametrize(('family', 'error'), [('liq', 0.05), ('pact', 0.05), ('lsq_plus', 0.05),
                                               ('lsq', 0.15)])
def test_predictions_are_close_to_those_that_were_trained(family: str, error: float) -> None:
    """At 8 bits; with fewer a code that is off by one is worth more."""
    model = detector(family, 8, 8)
    network = IntegerNetwork(lowered(model, stream_bit_width=12))
    with torch.no_grad():
        expected = model(normalized(image(0)))
    for kind, own in zip(expected, network(image(0))):
        for real, integer in zip(kind, own):
            assert (real - integer).norm() < error * real.norm()


class Chain(nn.Module):
    """Two convs with BN and ReLU, and a prediction: no skip, so nothing is calibrated."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        tiny = TinyDetector(weights(bits), inputs(bits))
        self.data_preprocessor = tiny.data_preprocessor
        self.stem, self.a1, self.cls = tiny.stem, tiny.a1, tiny.cls

    def forward(self, image: torch.Tensor, mode: str = 'tensor') -> tuple[list[torch.Tensor]]:
        return ([self.cls(self.a1(self.stem(image)))], )


@pytest.mark.parametrize('bits', range(2, 9))
def test_codes_are_those_that_were_trained_but_for_rounding(bits: int) -> None:
    torch.manual_seed(0)
    model = calibrated(Chain(bits), image(0))
    edges = IntegerNetwork(lowered(model)).run(image(0))
    seen = {}
    model.a1.conv.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    with torch.no_grad():
        model(normalized(image(0)))
    difference = (edges['stem.conv'] - model.a1.conv.input_quantizer.quantize(seen['x'])).abs()
    assert difference.max() <= (2 if bits > 6 else 1)
    assert (difference > 0).float().mean() < (0.3 if bits == 8 else 0.1)


@pytest.mark.parametrize('bits', [4, 8, 12, 16])
def test_streams_have_their_bits(bits: int) -> None:
    graph = lowered(detector(), stream_bit_width=bits)
    streams = [graph.edges[node.output] for node in graph.nodes if type(node).__name__ == 'Add']
    assert len(streams) == 3 and {edge.qmax for edge in streams} == {2**bits - 1}
    assert_exact(graph, image(2))


def test_both_operands_and_the_sum_share_a_unit() -> None:
    graph = lowered(detector())
    for node in graph.nodes:
        if type(node).__name__ == 'Add':
            assert len({graph.edges[name].unit for name in (*node.inputs, node.output)}) == 1


def test_shared_weights_are_kept_once() -> None:
    graph = lowered(detector())
    tower = [conv for conv in graph.convs() if conv.name.startswith('tower')]
    assert len(tower) == 2 and len({conv.weight for conv in tower}) == 1
    assert not np.array_equal(tower[0].requantization.factor, tower[1].requantization.factor)


def test_channels_with_a_negative_gamma_have_flipped_weights() -> None:
    model = detector()
    with torch.no_grad():
        model.tower.bn[1].weight.copy_(-model.tower.bn[1].weight)
    graph = lowered(model)
    first, second = (conv for conv in graph.convs() if conv.name.startswith('tower'))
    np.testing.assert_array_equal(graph.weights[first.weight], -graph.weights[second.weight])
    assert_exact(graph, image(3))


@pytest.mark.parametrize('gamma', [0.0, 1e-30, 1e-9, -1e-9])
def test_a_channel_without_a_scale_is_constant(gamma: float) -> None:
    model = detector()
    with torch.no_grad():
        model.out.bn.weight.fill_(gamma)
        model.out.bn.bias.copy_(torch.linspace(-1, 1, len(model.out.bn.bias)))
    graph = lowered(model)
    edges = IntegerNetwork(graph).run(image(0))
    quantizer = model.tower.conv.input_quantizer
    wanted = quantizer.quantize(model.out.bn.bias.clamp(min=0)).float()
    found = edges[next(conv.inputs[0] for conv in graph.convs() if conv.name == 'tower.conv')]
    stored = graph.edges['out.conv']
    if found.shape[1] == len(wanted) and stored.qmax == quantizer.qmax:
        assert (found == wanted.view(1, -1, 1, 1)).all()
    assert_exact(graph, image(0))


@pytest.mark.parametrize(('gamma', 'beta'), [(0.0, 0.7), (1e-6, 0.0), (-1e-7, 0.3), (1e-6, 1e6)])
def test_a_dead_channel_leaves_the_weights_on_their_grid(gamma: float, beta: float) -> None:
    trained = detector()
    with torch.no_grad():
        for norm in (trained.a1.bn, trained.a2.bn):  # in a ReLU, and in a stream
            norm.weight[1], norm.bias[1] = gamma, beta
    graph = lowered(trained)
    convs = [conv for conv in graph.convs() if conv.name in ('a1.conv', 'a2.conv')]
    assert [pack(graph.weights[conv.weight]).bits for conv in convs] == [4, 4]
    assert all(graph.weights[conv.weight][1].any() for conv in convs)
    found = IntegerNetwork(graph).run(image(1))
    assert all(len(found[conv.output][:, 1].unique()) == 1 for conv in convs)
    assert_exact(graph, image(1))
    pixels = image(1).to(torch.uint8).numpy()
    for engine in ENGINES:
        need('onnx', engine)
        model = with_edges(to_onnx(graph, *pixels.shape[2:], len(pixels), engine=engine))
        assert_same(graph, run_engine(engine, model, pixels), reference(graph, pixels))


@pytest.mark.parametrize('change', ['variance', 'interval', 'dead'])
def test_extreme_channels_stay_exact(change: str) -> None:
    model = detector()
    with torch.no_grad():
        if change == 'variance':
            model.out.bn.running_var[:2] = 0
        elif change == 'interval':
            model.tower.conv.input_quantizer.interval.fill_(1e-6)
        else:
            model.out.bn.running_mean[0] = 1e9
    assert_exact(lowered(model), image(0))


def test_no_eps_and_no_variance_is_refused() -> None:
    model = detector()
    model.out.bn.eps = 0.0
    model.out.bn.running_var[0] = 0
    with pytest.raises(ValueError, match='out.conv: the BN behind it has a variance of zero'):
        lowered(model)


def test_an_accumulator_beyond_int32_is_refused() -> None:
    graph = lowered(detector('liq', 8, 8))
    assert max(conv.bound for conv in graph.convs()) < 2**31
    model = detector('liq', 8, 8)
    wide = model.cls
    wide.weight = nn.Parameter(torch.ones(4, 8, 300, 300))
    wide.padding, wide.kernel_size = (150, 150), (300, 300)
    with pytest.raises(AccumulatorOverflow, match=r'cls.*: its sums may reach \d+'):
        lowered(model)


def test_a_conv_left_in_float_is_refused_by_name() -> None:
    model = detector()
    model.b1.conv.weight_quantizer = model.b1.conv.input_quantizer = None
    with pytest.raises(UnsupportedOperator, match='b1.conv: its weights are in float'):
        lowered(model)
    model = detector()
    model.b1.conv.input_quantizer = None
    with pytest.raises(UnsupportedOperator, match='b1.conv: its input is in float'):
        lowered(model)


@pytest.mark.parametrize('name', ['b1', 'a2', 'stem', 'tower', 'out', 'down'])
def test_convs_left_in_float_stay_so_where_that_is_allowed(name: str) -> None:
    model = detector('liq', 8, 8)
    conv = getattr(model, name).conv
    conv.weight_quantizer = conv.input_quantizer = None
    network = IntegerNetwork(lowered(model, allow_float=True, stream_bit_width=12))
    floats = [node for node in network.graph.nodes if type(node).__name__ == 'FloatConv']
    assert {node.name.split('[')[0] for node in floats} == {f'{name}.conv'}
    with torch.no_grad():
        expected = model(normalized(image(0)))
    for kind, own in zip(expected, network(image(0))):
        for real, integer in zip(kind, own):
            assert (real - integer).norm() < 0.05 * real.norm()
    loaded = IntegerNetwork()
    loaded.load_state_dict(network.state_dict())
    torch.testing.assert_close(loaded(image(0))[0][0], network(image(0))[0][0], atol=0, rtol=0)


def test_sums_may_be_negative() -> None:
    model = detector('signed_liq')
    for conv in model.lateral:
        conv.act = False
    graph = lowered(model)
    sums = [node for node in graph.nodes if type(node).__name__ == 'Add']
    assert graph.edges[sums[-1].output].qmin == -128
    assert any(graph.edges[conv.inputs[0]].qmin < 0 for conv in graph.convs())
    assert_exact(graph, image(1))


def test_an_unknown_operator_is_refused_by_name() -> None:
    model = detector()
    model.out.bn = nn.Sequential(model.out.bn, nn.SiLU())
    with pytest.raises(UnsupportedOperator, match='out.bn.1: aten.silu.default has no integer'):
        lowered(model)


def test_an_image_that_is_no_integer_is_refused() -> None:
    model = detector()
    model.data_preprocessor.std = torch.tensor([58.4, 57.1, 57.4])
    with pytest.raises(ValueError, match=r'model.data_preprocessor: .*std 1'):
        lowered(model)


def test_inputs_of_several_quantizations_are_requantized() -> None:
    graph = lowered(detector())
    nodes = [node for node in graph.nodes if isinstance(node, Requantize)]
    assert nodes and all(isinstance(graph.edges[node.inputs[0]], Codes) for node in nodes)


def test_the_graph_prints_as_a_table() -> None:
    text = str(lowered(detector()))
    assert 'tower.conv[1]' in text and '0..15' in text and 'unit' in text
