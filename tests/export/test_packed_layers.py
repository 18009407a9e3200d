"""Packed files of layers that are no plain convs: the same outputs, the codes in their bits."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from torch import Tensor, nn

from mmaqd.checkpoints import pack_state, read_checkpoint
from mmaqd.conversion import prepare
from mmaqd.export import store_codes
from mmaqd.export.packed import _parts
from mmaqd.quantizers import calibrate

INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, signed=True)
FLOAT = dict(weight_quantizer=None, input_quantizer=None)
MIXED = [
    dict(pattern='attention.k_proj', weight_quantizer=dict(bit_width=2)),
    dict(pattern='attention.v_proj', **FLOAT)
]


class Net(nn.Module):
    """One layer of each kind."""

    def __init__(self, kdim: int | None = None) -> None:
        super().__init__()
        self.dcn = DeformConv2dPack(3, 6, 3, padding=1)
        self.dcnv2 = ModulatedDeformConv2dPack(6, 6, 3, padding=1)
        for layer in (self.dcn, self.dcnv2):
            nn.init.normal_(layer.conv_offset.weight, std=0.1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.fc = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=kdim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.dcnv2(self.dcn(x).relu()).relu()).flatten(2).transpose(1, 2)
        keys = x if self.attention.in_proj_weight is None else self.fc(x)
        return self.attention(self.fc(x), keys, keys)[0]


def build(weight: dict, rules: list[dict], seed: int = 0, kdim: int | None = None) -> nn.Module:
    torch.manual_seed(seed)
    return prepare(Net(kdim), weight, INPUT, rules).eval()


X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
FAMILIES = {
    'LIQ': dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
    'LIQ-channels': dict(type='mmaqd.LIQWeightQuantizer', bit_width=3, axis=0),
    'LSQ-channels': dict(type='mmaqd.LSQWeightQuantizer', bit_width=4, axis=0),
    'DoReFa': dict(type='mmaqd.DoReFaWeightQuantizer', bit_width=3),
}  # yapf: disable


def packed(model: nn.Module, folder: Path) -> str:
    layouts = store_codes(model)
    path = folder / 'model.safetensors'
    path.write_bytes(pack_state(model.state_dict(), layouts, {}, _parts(model)))
    return str(path)


@pytest.mark.parametrize('weight', FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize('rules', [[], MIXED], ids=['alike', 'mixed'])
@pytest.mark.parametrize('kdim', [None, 4], ids=['one-size', 'other-sizes'])
def test_the_same_outputs_to_the_bit(weight, rules, kdim, tmp_path) -> None:
    model = build(weight, rules, kdim=kdim)
    calibrate(model, [X], run=lambda model, x: model(x))
    with torch.no_grad():
        expected = model(X)
        state = read_checkpoint(packed(model, tmp_path))['state_dict']
        assert state.keys() == model.state_dict().keys()
        other = build(weight, rules, seed=1, kdim=kdim)
        other.load_state_dict(state)
        assert torch.equal(other(X), expected)


def test_what_is_in_the_file(tmp_path) -> None:
    model = build(FAMILIES['LIQ-channels'], MIXED)
    calibrate(model, [X], run=lambda model, x: model(x))
    content = Path(packed(model, tmp_path)).read_bytes()
    header = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])
    about = header['__metadata__']
    layers, parts = json.loads(about['layers']), json.loads(about['parts'])
    assert about['format_version'] == '2'
    assert layers['up.weight']['axis'] == 1 and 'axis' not in layers['fc.weight']
    assert parts == {
        'attention.in_proj_weight': [f'attention.{each}_proj.weight' for each in 'qkv']
    }
    assert 'attention.in_proj_weight' not in header
    assert header['attention.q_proj.weight']['shape'] == [8 * 8 * 3 // 8]
    assert header['attention.k_proj.weight']['shape'] == [8 * 8 * 2 // 8]
    assert header['attention.v_proj.weight']['dtype'] == 'F32', 'in float by a rule'


def test_plain_layers_are_written_as_ever(tmp_path) -> None:
    rule = dict(pattern='attention', **FLOAT)
    model = build(FAMILIES['LIQ'], [rule, dict(pattern='attention.*', **FLOAT)])
    calibrate(model, [X], run=lambda model, x: model(x))
    content = Path(packed(model, tmp_path)).read_bytes()
    about = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])['__metadata__']
    assert about['format_version'] == '1' and 'parts' not in about
