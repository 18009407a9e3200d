"""From a config and a checkpoint to the integer graph and the checkpoint of its twin."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import Tensor

from mmaqd.compat import check_data
from mmaqd.engine.post_training import calibration_loader
from mmaqd.invocation import command
from mmaqd.registry import MODELS

from .files import Loaded, check_out, load_trained
from .graph import IntegerGraph
from .integer_detector import set_graph
from .lower import STREAM_BIT_WIDTH, lower_detector

NUM_IMAGES = 32


@dataclass(frozen=True)
class Converted(Loaded):
    """A trained low-bit detector and its integers.

    Attributes:
        graph: The integer graph.
    """

    graph: IntegerGraph


def convert_detector(config: str,
                     checkpoint: str,
                     num_images: int = NUM_IMAGES,
                     stream_bit_width: int = STREAM_BIT_WIDTH,
                     allow_float: bool = False,
                     cfg_options: dict | None = None) -> Converted:
    """Convert a trained low-bit detector to integers.

    Args:
        config: Path of the low-bit config.
        checkpoint: Its trained (or calibrated) checkpoint.
        num_images, stream_bit_width, allow_float: As for :func:`convert_loaded`.
        cfg_options: Dotted keys of the config and their new values.

    Raises:
        FileNotFoundError: The config, the checkpoint or the training data are missing.
        ValueError: As for :func:`convert_loaded`.
    """
    loaded = load_trained(config, checkpoint, cfg_options)
    graph = convert_loaded(loaded, num_images, stream_bit_width, allow_float)
    return Converted(loaded.cfg, loaded.detector, loaded.meta, graph)


def convert_loaded(loaded: Loaded,
                   num_images: int = NUM_IMAGES,
                   stream_bit_width: int = STREAM_BIT_WIDTH,
                   allow_float: bool = False) -> IntegerGraph:
    """The integers of a detector that was loaded.

    Skip and top-down connections are calibrated on training images that go through the test
    pipeline.

    Args:
        loaded: The detector and its config.
        num_images: Number of training images to look at, at least 1.
        stream_bit_width: Bits of skip and top-down connections, 4 to 16; the engines run 8.
        allow_float: Whether convs that a rule leaves in float stay so, between integers.

    Raises:
        FileNotFoundError: The training data are missing.
        ValueError: ``num_images`` or ``stream_bit_width`` is out of its range, or see
            :func:`mmaqd.export.lower_detector`.
    """
    if num_images < 1:
        raise ValueError(f'num_images must be at least 1, but got {num_images}.')
    if not 4 <= stream_bit_width <= 16:
        raise ValueError(f'stream_bit_width must be 4 to 16, but got {stream_bit_width}.')
    check_data(loaded.cfg, ('train', ))
    images = list(_images(loaded.cfg, loaded.detector, num_images))
    return lower_detector(loaded.detector, images, stream_bit_width, allow_float)


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
    check_out(out, '.pth')
    twin_config = f'{out.removesuffix(".pth")}.py'
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
        f'{converted.graph}\nWrote {out} and {twin_config}. Next: '
        f'{command("test", twin_config, out)}', 'current')
    return converted.graph


def integer_config(model: dict) -> dict:
    """The config of the twin of a model."""
    left = ('quantization', 'distillation', 'type', 'detector', '_scope_')
    twin = {key: value for key, value in model.items() if key not in left}
    for part in {'backbone', 'neck'} & set(twin):
        twin[part] = {**twin[part], 'init_cfg': None}
    return dict(type='mmaqd.IntegerDetector', detector=model.get('detector', model['type']), **twin)


def _images(cfg: Config, detector: nn.Module, num_images: int) -> Iterator[Tensor]:
    """Normalized training images that went through the test pipeline, at most so many."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    seen = 0
    for batch in calibration_loader(cfg):
        if seen >= num_images:
            return
        images = detector.data_preprocessor(batch, training=False)['inputs'][:num_images - seen]
        seen += len(images)
        yield images
