"""MMDetection's own configs, made tiny and low-bit."""
from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Iterator

from mmengine.config import Config, ConfigDict

_CONFIGS = Path(find_spec('mmdet').submodule_search_locations[0]) / '.mim' / 'configs'
WEIGHT = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
INPUT = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, signed=True)


def upstream_model(name: str, changes: dict | None = None) -> ConfigDict:
    """The model of a config of MMDetection, without checkpoints and with BN that trains."""
    cfg = deepcopy(_read(name))
    cfg.merge_from_dict(changes or {})
    model = cfg.model
    for part in _dicts(model):
        part.pop('init_cfg', None)
        if 'frozen_stages' in part:
            part['frozen_stages'] = -1
        if 'norm_eval' in part:
            part['norm_eval'] = False
    return model


@cache
def _read(name: str) -> Config:
    return Config.fromfile(str(_CONFIGS / name))


def low_bit(model: ConfigDict, rules: list[dict] = [], **quantizers: Any) -> ConfigDict:
    """The model as a low-bit one, every layer with 4 bits but for the rules."""
    block = dict(weight_quantizer=WEIGHT, input_quantizer=INPUT, rules=rules)
    return ConfigDict(
        model,
        type='mmaqd.QuantizedDetector',
        detector=model['type'],
        quantization={
            **block,
            **quantizers
        })


def tiny_resnet(depth: int = 18, **changes: Any) -> dict:
    """Changes that make a ResNet and the FPN behind it narrow."""
    widths = [8, 16, 32, 64] if depth == 18 else [32, 64, 128, 256]
    return {
        'model.backbone.depth': depth,
        'model.backbone.base_channels': 8,
        'model.neck.in_channels': widths,
        'model.neck.out_channels': 16,
        **changes
    }


def _dicts(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for each in value if isinstance(value, (list, tuple)) else ():
        yield from _dicts(each)
