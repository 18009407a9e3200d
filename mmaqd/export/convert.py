"""From a config and a checkpoint to the integer graph and the checkpoint of its twin."""
from __future__ import annotations

import os
import os.path as osp
from dataclasses import dataclass
from typing import Iterator

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmaqd.compat import check_data_files
from mmaqd.engine.post_training import calibration_loader
from mmaqd.registry import MODELS

from .graph import IntegerGraph
from .integer_detector import set_graph
from .lower import STREAM_BIT_WIDTH, lower_detector

NUM_IMAGES = 32


@dataclass(frozen=True)
class Converted:
    """What a conversion gives.

    Attributes:
        graph: The integer graph; None of a float network.
        cfg: The config, with what ``cfg_options`` changed.
        detector: The low-bit detector that was converted, in evaluation.
        meta: ``meta`` of its checkpoint.
    """

    graph: IntegerGraph | None
    cfg: Config
    detector: nn.Module
    meta: dict


def convert_detector(config: str,
                     checkpoint: str,
                     num_images: int = NUM_IMAGES,
                     stream_bit_width: int = STREAM_BIT_WIDTH,
                     allow_float: bool = False,
                     cfg_options: dict | None = None) -> Converted:
    """Convert a trained low-bit detector to integers.

    Skip and top-down connections are calibrated on training images that go through the test
    pipeline.

    Args:
        config: Path of the low-bit config.
        checkpoint: Its trained (or calibrated) checkpoint.
        num_images: Number of training images to look at, at least 1.
        stream_bit_width: Bits of skip and top-down connections, 4 to 16; the engines run 8.
        allow_float: Whether convs that a rule leaves in float stay so, between integers.
        cfg_options: Dotted keys of the config and their new values.

    Raises:
        FileNotFoundError: The config, the checkpoint or the training data are missing.
        ValueError: ``num_images`` or ``stream_bit_width`` is out of its range, or see
            :func:`mmaqd.export.lower_detector`.
    """
    if num_images < 1:
        raise ValueError(f'num_images must be at least 1, but got {num_images}.')
    if not 4 <= stream_bit_width <= 16:
        raise ValueError(f'stream_bit_width must be 4 to 16, but got {stream_bit_width}.')
    cfg, detector, meta = load_detector(config, checkpoint, cfg_options)
    check_data_files(cfg, ('train', ))
    graph = lower_detector(detector, list(_images(cfg, detector, num_images)), stream_bit_width,
                           allow_float)
    return Converted(graph, cfg, detector, meta)


def load_detector(config: str,
                  checkpoint: str,
                  cfg_options: dict | None = None) -> tuple[Config, nn.Module, dict]:
    """A trained detector in evaluation, with its config and the ``meta`` of its checkpoint."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(cfg_options or {})
    DefaultScope.get_instance('mmaqd_convert', scope_name=cfg.get('default_scope', 'mmdet'))
    detector = MODELS.build(cfg.model).eval()
    meta = load_checkpoint(detector, checkpoint, map_location='cpu').get('meta', {})
    return cfg, detector, meta


def convert_integer(config: str,
                    checkpoint: str,
                    out: str,
                    num_images: int = NUM_IMAGES,
                    stream_bit_width: int = STREAM_BIT_WIDTH,
                    allow_float: bool = False,
                    cfg_options: dict | None = None) -> IntegerGraph:
    """Write the twin of a trained low-bit detector: its checkpoint, and beside it its config.

    The config (``out`` with .py instead of .pth) is an ordinary one that MMDetection's tools take.

    Args:
        config, checkpoint, num_images, stream_bit_width, allow_float, cfg_options: As for
            :func:`convert_detector`.
        out: File to write, ending in .pth.

    Raises:
        ValueError: ``out`` doesn't end in .pth; or as for :func:`convert_detector`.
        OSError: ``out`` can't be written; seen before the work.
    """
    twin_config = _config_beside(out)
    converted = convert_detector(config, checkpoint, num_images, stream_bit_width, allow_float,
                                 cfg_options)
    cfg = converted.cfg.copy()
    cfg.model = integer_config(cfg.model)
    cfg.load_from = None
    twin = set_graph(MODELS.build(cfg.model), converted.graph)
    meta = {key: converted.meta[key] for key in ('dataset_meta', ) if key in converted.meta}
    torch.save(dict(meta=meta, state_dict=twin.state_dict()), out)
    cfg.dump(twin_config)
    print_log(
        f'{converted.graph}\nWrote {out} and {twin_config}. Next: python tools/test.py '
        f'{twin_config} {out}', 'current')
    return converted.graph


def integer_config(model: dict) -> dict:
    """The config of the twin of a model."""
    left = ('quantization', 'distillation', 'type', 'detector', '_scope_')
    detector = model.get('detector', model['type'])
    arguments = {key: value for key, value in model.items() if key not in left}
    for part in ('backbone', 'neck'):
        arguments[part] = {**arguments[part], 'init_cfg': None} if part in arguments else None
    return dict(
        type='mmaqd.IntegerDetector',
        detector=detector,
        **{
            key: value
            for key, value in arguments.items() if value is not None
        })


def _config_beside(out: str) -> str:
    if not out.endswith('.pth'):
        raise ValueError(f'--out: the file of the twin ends in .pth, but got {out!r}.')
    folder = osp.dirname(osp.abspath(out))
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK) or osp.isdir(out):
        raise PermissionError(f'--out: {out!r} can\'t be written.')
    return f'{out.removesuffix(".pth")}.py'


def _images(cfg: Config, detector: nn.Module, num_images: int) -> Iterator[Tensor]:
    """Normalized training images that went through the test pipeline, at most so many."""
    seen = 0
    for batch in calibration_loader(cfg):
        if seen >= num_images:
            return
        images = detector.data_preprocessor(batch, training=False)['inputs'][:num_images - seen]
        seen += len(images)
        yield images
