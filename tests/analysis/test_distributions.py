"""Noise and levels of quantizers against formulas written down here."""
from __future__ import annotations

from math import inf, log10

import pytest
import torch
from matplotlib.image import imread

from mmaqd.analysis import noise_table, plot_histograms, plot_noise, quantized_tensors
from mmaqd.analysis.distributions import QuantizedTensor
from mmaqd.quantizers import calibrate
from tests.helpers.detector import LEVELS, build, build_calibrated, make_batch, model_cfg

NORMALIZED, LAST = 'backbone.layer2.0.conv1', 'bbox_head.retina_cls'


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return build_calibrated('RetinaNet', bits=2)


@pytest.fixture(scope='module')
def tensors(model):
    return {
        (each.layer, each.part): each
        for each in quantized_tensors(model, [make_batch(), make_batch()])
    }


def decibels(values, quantized):
    return 10 * log10(
        float(values.double().square().sum()) / float((values - quantized).double().square().sum()))


def inputs_of(model, name):
    """Everything that reaches a layer, flat."""
    seen = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, x: seen.append(x[0].flatten()))
    model.eval()
    with torch.no_grad():
        for batch in [make_batch(), make_batch()]:
            model(**model.data_preprocessor(batch), mode='tensor')
    handle.remove()
    return torch.cat(seen)


def test_noise_of_normalized_weights(model, tensors):
    conv = model.get_submodule(NORMALIZED)
    weight = conv.weight.detach()
    weight = (weight - weight.mean()) / weight.std(correction=0)
    v = conv.weight_quantizer.interval.item()
    # Four grid points, -v, -v/3, v/3 and v.
    points = torch.tensor([-v, -v / 3, v / 3, v])
    nearest = points[(weight.flatten()[:, None] - points).abs().argmin(dim=1)].view_as(weight)
    measured = tensors[NORMALIZED, 'weights']
    assert measured.bits == 2 and not measured.in_steps
    assert measured.sqnr == pytest.approx(decibels(weight, nearest), abs=1e-3)
    assert measured.signal == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(measured.grid_points, points)
    assert set(measured.values.tolist()) <= set(weight.flatten().tolist())


@pytest.mark.parametrize('name, n', [(NORMALIZED, 3), (LAST, 255)])
def test_noise_of_inputs(model, tensors, name, n):
    v = model.get_submodule(name).input_quantizer.interval.item()
    values = inputs_of(model, name)
    codes = (values.double().clamp(0, v) / v * n).round()
    measured = tensors[name, 'inputs']
    assert measured.sqnr == pytest.approx(decibels(values, codes / n * v), abs=0.01)
    torch.testing.assert_close(
        measured.grid_points, (codes.unique() / n * v).float(), rtol=1e-5, atol=1e-6)
    assert set(measured.values.tolist()) <= set(values.tolist())


def test_order_is_that_of_the_layers(tensors):
    assert list(tensors)[:4] == [('backbone.conv1', 'weights'),
                                 ('backbone.layer1.0.conv1', 'weights'),
                                 ('backbone.layer1.0.conv1', 'inputs'),
                                 ('backbone.layer1.0.conv2', 'weights')]


def test_values_of_each_channel_are_given_in_its_steps():
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['weight_quantizer'].update(axis=0)
    model = build(cfg)
    calibrate(model, [make_batch()])
    measured = quantized_tensors(model, [])[1]
    assert measured.in_steps
    assert set(measured.grid_points.tolist()) <= set(range(-15, 16, 2))
    conv = model.get_submodule(measured.layer)
    weight = conv.weight.detach()
    weight = (weight - weight.mean()) / weight.std(correction=0)
    steps = weight / (conv.weight_quantizer.interval.detach() / 15).view(-1, 1, 1, 1)
    torch.testing.assert_close(measured.values[:9], steps.flatten()[:9])
    quantized = 2 * ((steps.clamp(-15, 15) + 15) / 2).round() - 15
    scale = (conv.weight_quantizer.interval.detach() / 15).view(-1, 1, 1, 1)
    assert measured.sqnr == pytest.approx(decibels(weight, quantized * scale), abs=1e-3)


def test_values_of_each_pyramid_level_are_given_in_its_steps():
    cfg = model_cfg('RetinaNet', 2)
    cfg['quantization']['rules'].append(
        dict(
            pattern='bbox_head.*_convs.*',
            input_quantizer=dict(
                type='mmaqd.MultiLevelQuantizer',
                num_levels=LEVELS,
                quantizer=cfg['quantization']['input_quantizer'])))
    model = build(cfg).eval()
    calibrate(model, [make_batch()])
    name, seen = 'bbox_head.cls_convs.0.conv', []
    conv = model.get_submodule(name)
    handle = conv.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    measured = {(t.layer, t.part): t for t in quantized_tensors(model, [make_batch()])}
    handle.remove()
    tensor = measured[name, 'inputs']
    assert tensor.in_steps and tensor.grid_points.tolist() == [0, 1, 2, 3]
    lengths = [level.interval.item() for level in conv.input_quantizer]
    assert tensor.values.max() == pytest.approx(
        max(float(x.max()) * 3 / length for x, length in zip(seen, lengths)), rel=1e-4)
    rounded = [
        length / 3 * (x / length * 3).round().clamp(0, 3) for x, length in zip(seen, lengths)
    ]
    expected = decibels(*(torch.cat([x.flatten() for x in each]) for each in (seen, rounded)))
    assert tensor.sqnr == pytest.approx(expected, abs=1e-3)


def test_levels_may_have_an_offset():
    cfg = model_cfg('RetinaNet', 3)
    cfg['quantization']['input_quantizer'] = dict(
        type='mmaqd.LSQPlusActivationQuantizer', bit_width=3)
    model = build(cfg)
    calibrate(model, [make_batch()])
    measured = {(t.layer, t.part): t for t in quantized_tensors(model, [make_batch()])}
    tensor = measured[NORMALIZED, 'inputs']
    quantizer = model.get_submodule(NORMALIZED).input_quantizer
    x = inputs_of(model, NORMALIZED)
    assert set(tensor.grid_points.tolist()) == set(quantizer(x).detach().unique().tolist())


def test_without_batches_there_are_only_weights(model):
    assert {tensor.part for tensor in quantized_tensors(model, [])} == {'weights'}


def test_the_model_stays_as_it_was(model):
    model.train()
    quantized_tensors(model, [make_batch()])
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match='no quantized layer'):
        quantized_tensors(build(model_cfg()), [make_batch()])


def given(layer='a', part='weights', signal=1.0, noise=0.01, **changes):
    values = dict(
        bits=4,
        values=torch.linspace(-1, 1, 50),
        grid_points=torch.tensor([-1., 0., 1.]),
        in_steps=False)
    return QuantizedTensor(layer, part, signal=signal, noise=noise, **{**values, **changes})


def test_decibels():
    assert given().sqnr == pytest.approx(20)
    assert given(noise=0.0).sqnr == inf
    assert given(signal=0.0, noise=1.0).sqnr == -inf


def test_table_has_a_row_for_each_layer():
    rows = noise_table([given('a'), given('a', 'inputs', noise=0.1, bits=8), given('b')])
    assert rows == [{
        'layer': 'a',
        'weights: bits': 4,
        'weights: SQNR (dB)': pytest.approx(20),
        'inputs: bits': 8,
        'inputs: SQNR (dB)': pytest.approx(10)
    }, {
        'layer': 'b',
        'weights: bits': 4,
        'weights: SQNR (dB)': pytest.approx(20),
        'inputs: bits': None,
        'inputs: SQNR (dB)': None
    }]


def test_bars_are_the_decibels(tmp_path):
    figure = plot_noise([given('a'), given('b'), given('b', 'inputs', noise=0.1)])
    weights, inputs = figure.axes
    assert [bar.get_height() for bar in weights.patches] == pytest.approx([20, 20])
    (bar, ) = inputs.patches
    assert bar.get_height() == pytest.approx(10) and bar.get_center()[0] == pytest.approx(1)
    assert [label.get_text() for label in inputs.get_xticklabels()] == ['a', 'b']
    figure.savefig(tmp_path / 'noise.png')


def test_histograms_have_the_levels_drawn_in(tmp_path):
    figure = plot_histograms([given('a'), given('b'), given('b', 'inputs')])
    assert len(figure.axes) == 4
    panel = figure.axes[0]
    (points, ) = panel.collections
    assert [segment[0][0] for segment in points.get_segments()] == [-1, 0, 1]
    (histogram, ) = panel.patches
    assert histogram.get_data().values.sum() == 50
    assert not figure.axes[1].axison  # no inputs
    figure.savefig(tmp_path / 'histograms.png')
    assert imread(tmp_path / 'histograms.png').std() > 0


def test_no_histograms_of_nothing():
    with pytest.raises(ValueError, match='no tensors'):
        plot_histograms([])
