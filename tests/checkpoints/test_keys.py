"""What the keys of a state tell."""
from __future__ import annotations

import torch

from mmaqd.checkpoints.keys import quantizer_names, spread_levels
from mmaqd.layers import MultiLevelBN


def test_names_of_quantizers():
    state = dict.fromkeys([
        'a.weight', 'a.weight_quantizer.bits', 'a.weight_quantizer.interval',
        'b.input_quantizer.0.bits', 'bits', 'x_quantizer'
    ])
    assert quantizer_names(state) == ['a.weight_quantizer', 'b.input_quantizer.0']


def test_one_for_all_levels_is_spread():
    model = torch.nn.ModuleDict(dict(bn=MultiLevelBN(2, num_levels=3)))
    state = {f'bn.{key}': value for key, value in torch.nn.BatchNorm2d(2).state_dict().items()}
    spread_levels(model, state)
    assert state.keys() == model.state_dict().keys()


def test_levels_of_their_own_are_not_overwritten():
    model = MultiLevelBN(2, num_levels=2)
    state = {**model.state_dict(), 'weight': torch.full((2, ), 7.)}
    spread_levels(model, state)
    assert (state['0.weight'] == 1).all() and 'weight' in state
