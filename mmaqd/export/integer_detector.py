"""The config type of the twin of a detector: the detector with an integer network."""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from mmaqd.registry import MODELS

from .graph import IntegerGraph
from .image import integer_mean
from .network import IntegerNetwork


@MODELS.register_module()
def IntegerDetector(detector: str,
                    quantization: dict | None = None,
                    distillation: dict | None = None,
                    **arguments: Any) -> nn.Module:
    """Build an upstream detector that predicts with an integer network.

    What is returned is an ordinary instance of ``detector`` whose backbone is the integer network
    (see :class:`mmaqd.export.IntegerNetwork`), without a neck, and whose head only decodes. It is
    empty until a checkpoint that tools/deployment/convert_integer.py wrote is loaded. It can't be
    trained.

    Args:
        detector: Type of the detector, e.g. ``'RetinaNet'``.
        quantization: Of the low-bit config; the checkpoint has all of it, so it is left aside.
        distillation: Likewise.
        **arguments: The detector's own arguments.

    Raises:
        ValueError: The data preprocessor doesn't leave the image in integers.
    """
    model = MODELS.build(dict(type=detector, **arguments))
    model.backbone = _FromNormalized(integer_mean(model))
    if model.with_neck:
        del model.neck
    _make_decoder(model.bbox_head)
    return model


def set_graph(model: nn.Module, graph: IntegerGraph) -> nn.Module:
    """Let a detector built as :func:`IntegerDetector` compute ``graph``; returns it."""
    model.backbone.network = IntegerNetwork(graph)
    return model


class _FromNormalized(nn.Module):
    """Takes the mean of the data preprocessor back, which gives the 8-bit image."""

    def __init__(self, mean: Any) -> None:
        super().__init__()
        self.register_buffer(
            'mean', torch.as_tensor(mean).float().view(1, -1, 1, 1), persistent=False)
        self.network = IntegerNetwork()

    def init_weights(self) -> None:
        """There is nothing to initialize."""

    def forward(self, image: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        return self.network((image + self.mean).round_().clamp_(0, 255))


class _Decoder:
    """A dense head that is given its predictions."""

    def forward(self, predictions: tuple) -> tuple:
        return tuple(list(kind) for kind in predictions)

    def loss(self, *args: Any, **kwargs: Any) -> dict:
        raise RuntimeError('An integer network can\'t be trained: train the low-bit config, and '
                           'convert its checkpoint again.')


def _make_decoder(head: nn.Module) -> None:
    for name, child in list(head.named_children()):
        if next(child.parameters(), None) is not None:
            delattr(head, name)
    head.__class__ = _decoder_class(type(head))


@lru_cache(maxsize=None)
def _decoder_class(head: type) -> type:
    return type(f'Decoding{head.__name__}', (_Decoder, head), {})
