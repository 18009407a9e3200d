"""Sizes and bit operations against figures worked out by hand."""
from collections import namedtuple

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmaqd.analysis import (LayerSize, bit_operations, count_macs, detector_macs, image_size,
                            layer_sizes, packed_weight_bytes, size_summary, size_table)
from mmaqd.conversion import prepare, quantization_table
from tests.helpers.detector import DETECTORS, build, model_cfg

Row = namedtuple('Row', 'module weight_bits input_bits num_weights')


class Tiny(nn.Module):
    """A conv with stride and groups, and one that runs at two resolutions like a shared head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.shared = nn.Conv2d(6, 5, 1, bias=False)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.shared(x), self.shared(x[..., ::2, ::2])


@pytest.fixture
def model():
    return Tiny()


def test_packed_bytes_round_up_layer_by_layer():
    # 3 x 3 bits and 5 x 4 bits take 2 and 3 bytes, 2 floats 8 bytes.
    rows = [Row('a', 3, 4, 3), Row('b', 4, 4, 5), Row('c', 32, 32, 2)]
    assert packed_weight_bytes(rows) == 2 + 3 + 8


def test_float_model_takes_four_bytes_a_weight(model):
    assert packed_weight_bytes(quantization_table(model)) == 4 * (6 * 2 * 9 + 5 * 6 + 1)


def test_quantized_model_takes_its_bits(model):
    prepare(
        model,
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=3),
        rules=[
            dict(pattern='stem', weight_quantizer=dict(bit_width=8)),
            dict(pattern='unused', weight_quantizer=None)
        ])
    # 108 bytes, 90 bits in 12 bytes, one float.
    assert packed_weight_bytes(quantization_table(model)) == 108 + 12 + 4


def test_macs_count_stride_groups_batch_and_every_use(model):
    macs = count_macs(model, torch.zeros(2, 4, 8, 8))
    stem = 2 * 6 * 4 * 4 * (2 * 9)
    shared = 2 * 5 * 6 * (4 * 4 + 2 * 2)
    assert macs == dict(stem=stem, shared=shared)


def test_counting_leaves_no_hooks(model):
    count_macs(model, torch.zeros(1, 4, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_after_an_error(model):
    with pytest.raises(RuntimeError):
        count_macs(model, torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_bit_operations():
    rows = [Row('image', 8, 8, 1), Row('a', 4, 4, 1), Row('b', 2, 3, 1)]
    macs = dict(image=10, a=100)
    assert bit_operations(rows, macs) == 10 * 64 + 100 * 16


def test_bit_operations_refuse_an_unknown_module():
    with pytest.raises(KeyError, match='other'):
        bit_operations([Row('a', 4, 4, 1)], dict(other=1))


LAYERS = [LayerSize('image', 8, 8, 3, 10), LayerSize('a', 3, 4, 5, 100)]


def test_layer_sizes():
    rows = [Row('image', 8, 8, 3), Row('a', 3, 4, 5), Row('unused', 32, 32, 7)]
    *layers, unused = layer_sizes(rows, dict(image=10, a=100))
    assert layers == LAYERS
    assert [layer.weight_bytes for layer in layers] == [3, 2]
    assert [layer.float_weight_bytes for layer in layers] == [12, 20]
    assert [layer.bit_operations for layer in layers] == [10 * 64, 100 * 12]
    assert [layer.float_bit_operations for layer in layers] == [10 * 1024, 100 * 1024]
    assert (unused.macs, unused.weight_bytes, unused.bit_operations) == (0, 28, 0)


def test_table_ends_with_the_total():
    table = size_table(LAYERS)
    assert [row['layer'] for row in table] == ['image', 'a', 'total']
    assert table[1] == {
        'layer': 'a',
        'weight bits': 3,
        'input bits': 4,
        'weights': 5,
        'bytes': 2,
        'float bytes': 20,
        'MACs': 100,
        'MACs (%)': 90.9,
        'bit operations': 1200,
        'float bit operations': 102400
    }
    assert table[2] == {
        'layer': 'total',
        'weight bits': None,
        'input bits': None,
        'weights': 8,
        'bytes': 5,
        'float bytes': 32,
        'MACs': 110,
        'MACs (%)': 100.0,
        'bit operations': 1840,
        'float bit operations': 112640
    }


def test_summary():
    layers = [LayerSize('a', 4, 2, 10**6, 10**9)]
    assert size_summary(layers) == (
        'Weights: 0.50 MB, the float twin 4.00 MB (8.0 times as much). Bit operations: 8.0 x 10^9, '
        'the float twin 1024.0 x 10^9 (128.0 times as many).')


def test_summary_names_what_multiplies_in_float():
    layers = [LayerSize('a', 4, 4, 10, 600), LayerSize('b', 4, 32, 10, 100)]
    layers += [LayerSize(f'c{i}', 32, 32, 0, i) for i in (0, 100, 200)]
    assert size_summary(layers).endswith(' In float are 40.0% of the MACs: c200, b, c100.')
    layers += [LayerSize(f'd{i}', 32, 32, 0, 1) for i in range(9)]
    assert size_summary(layers).endswith('c200, b, c100, d0, ... (12 in all).')
    assert 'In float' not in size_summary(layers[1:]), 'a float model'


@pytest.mark.parametrize('detector', DETECTORS)
def test_macs_of_a_low_bit_detector_are_those_that_its_float_twin_really_does(detector):
    low_bit = build(model_cfg(detector, bits=4))
    state = {name: value.clone() for name, value in low_bit.state_dict().items()}
    counted = detector_macs(low_bit, 64, 96)
    real = count_macs(build(model_cfg(detector)).eval(), torch.rand(1, 3, 64, 96))
    assert counted == real
    assert next(iter(counted)) == 'backbone.conv1'
    # 8 channels at half the resolution, 7 x 7 taps in 3 channels.
    assert counted['backbone.conv1'] == 8 * 32 * 48 * 147
    assert low_bit.training
    assert all(torch.equal(value, state[name]) for name, value in low_bit.state_dict().items())


def config_with(pipeline, divisor=32, wrapped=False):
    dataset = dict(pipeline=pipeline)
    return Config(
        dict(
            model=dict(data_preprocessor=dict(pad_size_divisor=divisor)),
            test_dataloader=dict(dataset=dict(dataset=dataset) if wrapped else dataset)))


def test_image_size_is_padded():
    steps = [dict(type='LoadImageFromFile'), dict(type='mmdet.Resize', scale=(1333, 800))]
    assert image_size(config_with(steps)) == (800, 1344)
    assert image_size(config_with(steps, divisor=1, wrapped=True)) == (800, 1333)


def test_unknown_image_size_is_an_error():
    for steps in ([dict(type='LoadImageFromFile')], [dict(type='Resize', scale_factor=2.0)]):
        with pytest.raises(ValueError, match='no Resize with a scale.*--shape'):
            image_size(config_with(steps))
