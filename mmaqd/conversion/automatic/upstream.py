"""The config that is to be quantized: where it is, whether it can be, and its float model."""
from __future__ import annotations

import os.path as osp
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Iterator

import torch.nn as nn
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope

from mmaqd.paths import upstream_config_path
from mmaqd.registry import MODELS

_UPSTREAM = 'mmdet::'
_STD_OF_ZEROS = 0.01


@dataclass(frozen=True)
class Upstream:
    """A config of a float detector.

    Attributes:
        base: What ``_base_`` of a config that inherits it must be.
        name: File name without its ending.
        cfg: Its content, with the options of the user.
        options: The options of the user, dotted keys and values.
    """

    base: str
    name: str
    cfg: Config
    options: dict[str, Any]

    def build(self) -> nn.Module:
        """Build the float detector, with random weights and without fetching any."""
        return build_without_download(self.cfg.model)


def read_upstream(config: str, options: dict | None = None) -> Upstream:
    """Read a config and check that it can be quantized.

    Args:
        config: Path of a config, or the name of one that comes with MMDetection:
            ``'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'``, with or without ``mmdet::``.
        options: Dotted keys of the config and their new values.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: It is no config of a float detector, or of one that can't be inherited so.
    """
    base, path = _locate(config)
    cfg = _read(path, config)
    cfg.merge_from_dict(options or {})
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    _check(cfg, config)
    return Upstream(base, osp.splitext(osp.basename(path))[0], cfg, dict(options or {}))


def build_without_download(model: dict) -> nn.Module:
    """Build a detector of a config whose pretrained weights are left out.

    It gets the weights that a training from scratch starts with. Those that are zero there, and are
    not once they are trained, are drawn at random, so that something passes them.
    """
    built = revert_sync_batchnorm(MODELS.build(_without_weights(deepcopy(model))))
    built.init_weights()
    for parameter in built.parameters():
        if parameter.dim() >= 2 and not parameter.any():
            nn.init.normal_(parameter, std=_STD_OF_ZEROS)
    return built


def num_classes(cfg: Any) -> int:
    """The least number of classes that any part of a model has, at least 1."""
    return max(min(_values(cfg, 'num_classes'), default=1), 1)


def has_masks(cfg: Config) -> bool:
    """Whether the training data of a config have masks."""
    return any(_values(cfg.get('train_dataloader') or {}, 'with_mask'))


def _locate(config: str) -> tuple[str, str]:
    """What ``_base_`` must be, and the path."""
    if config.startswith(_UPSTREAM):
        return config, upstream_config_path(config[len(_UPSTREAM):])
    if osp.isfile(config):
        return config, config
    if osp.isdir(config) or osp.isabs(config) or config.startswith('.'):
        raise FileNotFoundError(f'{config!r} is no file. Give the path of a config, or the name of '
                                "one of MMDetection's: "
                                f"'{_UPSTREAM}retinanet/retinanet_r50_fpn_1x_coco.py'.")
    return _UPSTREAM + config, upstream_config_path(config)


def _read(path: str, config: str) -> Config:
    if not path.endswith('.py'):
        raise ValueError(f'{config}: a config is a Python file, expected a name that ends in .py.')
    try:
        if Config._is_lazy_import(path):
            raise ValueError(
                f'{config} is a config of the new style, whose types are imported. One that '
                'inherits it can not be written; write it in the old style first: '
                f'Config.fromfile({config!r}).dump(\'my_config.py\').')
        return Config.fromfile(path)
    except (SyntaxError, NameError, TypeError) as error:
        raise ValueError(
            f'{config} is no config of MMDetection: it can not be read ({error}).') from error


def _check(cfg: Config, config: str) -> None:
    model = cfg.get('model')
    if not isinstance(model, dict) or not model.get('type'):
        raise ValueError(f'{config} is no config of a detector: expected model=dict(type=...), but '
                         f'got {type(model).__name__ if model is None else model!r}.')
    kind = model.type
    if 'quantization' in model or str(kind).split('.')[-1] == 'QuantizedDetector':
        raise ValueError(f'{config} is quantized already: its model is a {kind}. Give the config '
                         'of its float twin.')
    found = MODELS.get(kind) if isinstance(kind, str) else None
    if not isinstance(found, type) or not issubclass(found, BaseDetector):
        raise ValueError(f'{config}: model.type must be a detector of MMDetection, but got '
                         f'{kind!r}.')
    if 'detector' in model:
        raise ValueError(f'{config}: a {kind} has a key model.detector of its own, which '
                         'mmaqd.QuantizedDetector needs for itself. Quantize the config of that '
                         'detector.')


def _without_weights(cfg: Any) -> Any:
    """A config in which nothing names weights to start from."""
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_without_weights(each) for each in cfg)
    if not isinstance(cfg, dict):
        return cfg
    for key, value in cfg.items():
        if key == 'pretrained':
            cfg[key] = False if value is True else None
        elif key == 'teacher_ckpt' or key == 'init_cfg' and 'checkpoint' in str(value):
            cfg[key] = None
        else:
            cfg[key] = _without_weights(value)
    return cfg


def _values(cfg: Any, wanted: str) -> Iterator[int]:
    items = cfg.items() if isinstance(cfg, dict) else enumerate(cfg)
    for key, value in items:
        if key == wanted and isinstance(value, int):
            yield value
        elif isinstance(value, (dict, list, tuple)):
            yield from _values(value, wanted)
