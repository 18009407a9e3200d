"""Sizes and bit operations against figures worked out by hand."""
from collections import namedtuple

import pytest
import torch
from torch import nn

from mmaqd.analysis import bit_operations, count_macs, packed_weight_bytes
from mmaqd.conversion import prepare, quantization_table

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
    rows = [Row('image', 8, 32, 1), Row('a', 4, 4, 1), Row('b', 2, 3, 1)]
    macs = dict(image=10, a=100)
    assert bit_operations(rows, macs) == 10 * 8 * 32 + 100 * 16
    assert bit_operations(rows, macs, dict(image=8)) == 10 * 64 + 100 * 16


@pytest.mark.parametrize('arguments', [(dict(other=1), ), (dict(a=1), dict(other=8))])
def test_bit_operations_refuse_an_unknown_module(arguments):
    with pytest.raises(KeyError, match='other'):
        bit_operations([Row('a', 4, 4, 1)], *arguments)
