"""MACs against figures worked out by hand: whatever multiplies is counted where it runs."""
from __future__ import annotations

import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from torch import Tensor, nn

from mmaqd.analysis import bit_operations, count_macs, with_float_work
from mmaqd.analysis.macs import detector_macs, image_channels
from mmaqd.conversion import quantization_table
from mmaqd.registry import MODELS
from tests.helpers.detector import build, model_cfg


@pytest.mark.parametrize('layer, shape, expected', [
    pytest.param(nn.Linear(6, 5), (2, 3, 6), 2 * 3 * 6 * 5, id='linear'),
    pytest.param(nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9), 2 * 6 * 7 * 2 * 3, id='conv1d'),
    pytest.param(nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 2 * 8, id='conv3d'),
    pytest.param(
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (1, 4, 5, 5),
        4 * 25 * 3 * 9,
        id='transposed'),
    pytest.param(nn.Embedding(5, 4), None, 0, id='embedding'),
    pytest.param(nn.BatchNorm2d(4), (2, 4, 3, 3), 0, id='norm'),
])
def test_layers_of_every_kind(layer: nn.Module, shape: tuple, expected: int) -> None:
    x = torch.zeros(2, 3, dtype=torch.long) if shape is None else torch.rand(shape)
    macs = count_macs(nn.Sequential(layer), x)
    assert macs.get('0', 0) == expected and sum(macs.values()) == expected


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('gradients', [True, False])
def test_attention_with_its_projections(training: bool, gradients: bool) -> None:

    class Attention(nn.Module):

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=False)[0]

    with torch.set_grad_enabled(gradients):
        macs = count_macs(Attention().train(training), torch.rand(3, 5, 8))
    projections, products = 4 * 3 * 5 * 8 * 8, 2 * 3 * 5 * 5 * 8
    assert sum(macs.values()) == projections + products
    assert set(macs) == {'inner'}


@pytest.mark.parametrize('layer', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_deformable_convs(layer: type) -> None:
    pack = layer(4, 6, 3, padding=1).eval()
    with torch.no_grad():
        macs = count_macs(nn.Sequential(pack), torch.rand(1, 4, 5, 5))
    offsets = pack.conv_offset.out_channels * 25 * 4 * 9
    assert macs == {'0.conv_offset': offsets, '0': 6 * 25 * 4 * 9}


def test_a_product_without_weights_is_work_in_float() -> None:

    class Product(nn.Module):

        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(1, 2)

    model = nn.Sequential(nn.Linear(4, 4), Product())
    macs = count_macs(model, torch.rand(2, 3, 4))
    assert macs == {'0': 2 * 3 * 16, '1': 2 * 9 * 4}
    rows = with_float_work(quantization_table(model), macs)
    assert [(row.module, row.num_weights) for row in rows] == [('0', 16), ('1', 0)]
    assert bit_operations(rows, macs) == 1024 * sum(macs.values())


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_images_of_any_number_of_channels(channels: int) -> None:
    cfg = model_cfg('RetinaNet', 4)
    cfg['backbone']['in_channels'] = channels
    cfg['data_preprocessor'].update(mean=None, std=None, bgr_to_rgb=False)
    model = build(cfg)
    macs = detector_macs(model, 64, 64)
    assert macs['backbone.conv1'] == model.backbone.conv1.weight.numel() * 32 * 32
    assert macs['backbone.conv1'] == channels * 49 * 8 * 32 * 32


def test_a_focus_layer_takes_a_quarter_of_what_its_conv_takes() -> None:
    backbone = MODELS.build(dict(type='mmdet.CSPDarknet', widen_factor=0.125, deepen_factor=0.33))
    assert image_channels(backbone) == 3
    assert image_channels(nn.ReLU()) == 3
