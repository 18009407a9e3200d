"""Layer-wise learning rates: weight decay for weights, none for what quantizers learn."""
from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmaqd.engine.layer_decay import spare_single_values
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import LIQActivationQuantizer, LIQWeightQuantizer

NAME = 'LearningRateDecayOptimizerConstructor'
WEIGHT_DECAY = 0.05


class ConvNeXt(nn.Module):
    """Named as the backbone that upstream's constructor is for."""

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        weight = LIQWeightQuantizer(4, axis=axis, num_channels=6)
        self.stages = nn.ModuleList([
            QuantConv2d(
                3, 6, 3, weight_quantizer=weight, input_quantizer=LIQActivationQuantizer(4))
        ])


class Detector(nn.Module):

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.backbone = ConvNeXt(axis)
        self.bbox_head = nn.Conv2d(6, 3, 1)


def config(kind: str, constructor: str) -> Config:
    return Config(
        dict(
            model=dict(type=kind),
            optim_wrapper=dict(
                constructor=constructor,
                paramwise_cfg=dict(decay_rate=0.7, decay_type='stage_wise', num_layers=6),
                optimizer=dict(type='AdamW', lr=1e-3, weight_decay=WEIGHT_DECAY))))


@pytest.mark.parametrize('axis', [None, 0])
@pytest.mark.parametrize('constructor', [NAME, f'mmdet.{NAME}'])
def test_intervals_are_spared_and_keep_their_learning_rate(axis, constructor):
    cfg = config('mmaqd.QuantizedDetector', constructor)
    spare_single_values(cfg)
    model = Detector(axis)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {name: group for group in groups for name in group['param_names']}
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    decay = {name: group['weight_decay'] for name, group in found.items()}
    assert decay == {name: WEIGHT_DECAY * (name.endswith('weight')) for name in found}
    assert sum(name.endswith('interval') for name in found) == 2
    rates = {group['lr'] for name, group in found.items() if 'stages' in name}
    assert len(rates) == 1 and rates != {found['bbox_head.weight']['lr']}


@pytest.mark.parametrize(('kind', 'constructor'), [('RetinaNet', NAME),
                                                   ('mmaqd.QuantizedDetector', 'Other'),
                                                   ('mmaqd.QuantizedDetector', None)])
def test_other_configs_stay_as_they_are(kind, constructor):
    cfg = config(kind, constructor)
    spare_single_values(cfg)
    assert cfg.optim_wrapper.constructor == constructor
