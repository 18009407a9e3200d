"""What stands in for a model's quantizers while these look at their data.

A layer takes the kernel of a quantizer into its own forward and backward pass, and calls any other
module in its place. So neither quantizers nor layers know whether a calibration goes on.
"""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Collection, Iterator

import torch
import torch.nn as nn
from torch import Tensor

from .base import Quantizer
from .roles import ActivationQuantizer
from .watch import can_look


class Observer(nn.Module):
    """Stands in for a quantizer without values, lets it take samples, and passes on what it gets.

    Faults of the data are kept by the quantizer, not raised, but for NaN and infinity.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.numel():
            with torch.no_grad():
                self.quantizer.look(x)
                self.quantizer.take_samples(x, *args, **kwargs)
        return x


class Inspector(nn.Module):
    """Stands in for a quantizer that needs no start: it looks at its data, and quantizes them."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        if can_look(x):
            self.quantizer.look(x)
        return self.quantizer.fake_quantize(x)


@contextmanager
def stand_ins(model: nn.Module, quantizers: Collection[Quantizer]) -> Iterator[None]:
    """Within the block :class:`Observer` or :class:`Inspector` are in the places of quantizers.

    Args:
        model: It holds the quantizers.
        quantizers: Those that look at their data. Weights that have values need no look.

    Raises:
        TypeError: ``model`` is itself a quantizer without values: nothing can stand in for it.
    """
    if isinstance(model, Quantizer) and not bool(model.initialized):
        raise TypeError(
            f'{model.name}: expected a model that holds quantizers, but got a quantizer '
            'alone. Call its observe(x) for each batch, then its initialize().')
    made = {each: Observer(each) for each in quantizers if not bool(each.initialized)}
    made.update({
        each: Inspector(each)
        for each in quantizers if each not in made and isinstance(each, ActivationQuantizer)
    })
    _replace(model, made)
    try:
        yield
    finally:
        _replace(model, {stand_in: quantizer for quantizer, stand_in in made.items()})


def _replace(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
