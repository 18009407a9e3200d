"""The table of what was done: read off the modules, not off what was asked for."""
from __future__ import annotations

import pytest
from torch import nn

from mmaqd.conversion import prepare
from mmaqd.models.quantization_table import format_table, quantization_table
from mmaqd.quantizers import LIQActivationQuantizer, LIQWeightQuantizer
from tests.helpers.detector import DETECTORS, PREDICTION_CONVS, build, model_cfg

WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)


def rows_by_name(model: nn.Module) -> dict:
    return {row.module: row for row in quantization_table(model)}


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('bits', [2, 4])
def test_detector_has_the_bits_that_were_asked_for(detector, bits):
    rows = rows_by_name(build(model_cfg(detector, bits)))
    special = {f'bbox_head.{name}': (8, 8) for name in PREDICTION_CONVS[detector]}
    special['backbone.conv1'] = (8, 8)
    assert special.keys() < rows.keys()
    for name, row in rows.items():
        assert (row.weight_bits, row.input_bits) == special.get(name, (bits, bits)), name


INTEGERS = dict(mean=[124, 116.0, 104], std=[1, 1, 1])


@pytest.mark.parametrize('preprocessor, rule, expected', [
    (INTEGERS, {}, 8),
    (dict(mean=None, std=None), {}, 8),
    (dict(mean=[123.675, 116, 104], std=[1, 1, 1]), {}, 32),
    (dict(mean=[124, 116, 104], std=[58.4, 57, 57]), {}, 32),
    (INTEGERS, dict(input_quantizer=dict(bit_width=6, signed=True)), 6),
    (INTEGERS, dict(weight_quantizer=None), 32),
])
def test_the_image_has_8_bits_where_it_comes_as_integers(preprocessor, rule, expected):
    cfg = model_cfg('RetinaNet', 4)
    cfg['data_preprocessor'] = dict(type='DetDataPreprocessor', **preprocessor)
    cfg['quantization']['rules'][0].update(rule)
    first = quantization_table(build(cfg))[0]
    assert (first.module, first.input_bits) == ('backbone.conv1', expected)


def test_every_conv_of_the_model_has_a_row_in_module_order():
    model = build(model_cfg('RetinaNet', 4))
    convs = [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d)]
    assert [row.module for row in quantization_table(model)] == convs


def test_float_layers_are_listed_as_float():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2))
    prepare(model, WEIGHT, INPUT, [dict(pattern='2', weight_quantizer=None, input_quantizer=None)])
    conv, linear = quantization_table(model)
    assert (conv.weight_bits, conv.input_bits, conv.granularity) == (4, 4, 'per_tensor')
    assert (conv.weight_quantizer, conv.input_quantizer) == ('LIQWeightQuantizer',
                                                             'LIQActivationQuantizer')
    assert (linear.weight_bits, linear.input_bits, linear.granularity) == (32, 32, None)
    assert (linear.weight_quantizer, linear.input_quantizer) == (None, None)
    assert (conv.num_weights, linear.num_weights) == (3 * 4 * 9, 8)


def test_per_channel_intervals_are_listed_as_such():
    model = prepare(nn.Sequential(nn.Conv2d(3, 1, 3, bias=False)), dict(WEIGHT, axis=0), INPUT)
    assert quantization_table(model)[0].granularity == 'per_channel'


def test_a_layer_that_was_tampered_with_shows_what_it_does_now():
    model = build(model_cfg('RetinaNet', 4))
    conv = model.backbone.layer1[0].conv1
    conv.weight_quantizer = LIQWeightQuantizer(2, axis=0, num_channels=conv.out_channels)
    conv.input_quantizer = LIQActivationQuantizer(3)
    model.backbone.layer1[0].conv2.input_quantizer = None
    rows = rows_by_name(model)
    row = rows['backbone.layer1.0.conv1']
    assert (row.weight_bits, row.input_bits, row.granularity) == (2, 3, 'per_channel')
    assert rows['backbone.layer1.0.conv2'].input_bits == 32
    assert rows['backbone.layer1.1.conv1'].weight_bits == 4


def test_text_has_a_line_for_every_row():
    rows = quantization_table(build(model_cfg('FCOS', 3)))
    lines = format_table(rows).splitlines()
    assert [cell.strip() for cell in lines[1].strip('|').split('|')
            ] == ['module', 'weight bits', 'input bits', 'granularity', 'weights']
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[3:-1]]
    assert cells == [[
        row.module,
        str(row.weight_bits),
        f'{row.input_bits} (image)' if row.module == 'backbone.conv1' else str(row.input_bits),
        row.granularity,
        str(row.num_weights)
    ] for row in rows]
