"""What the graph of a detector that ran says of its layers.

Which ones take the image in, which ones make the predictions, and whose inputs are never negative.
"""
from __future__ import annotations

from typing import Any, Collection, Iterator

import torch
import torch.nn as nn
from torch import Tensor

# By what is called in the graph: what is never negative, and what is not if its inputs are not.
_NEVER_NEGATIVE = set('Relu Sigmoid Softmax Hardsigmoid Hardtanh Threshold Softplus Exp Abs Clamp '
                      'ClampMin'.split())
_KEEP_SIGN = set(
    'Add Mul Div Mean Sum Cat Stack Split SplitWithSizes Unbind Chunk Max Maximum Amax '
    'MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D AdaptiveMaxPool2D '
    'UpsampleNearest2D UpsampleBilinear2D RoIAlignFunction View UnsafeView '
    'ReshapeAlias Permute Transpose T Slice Select Index IndexSelect Gather Unsqueeze '
    'Squeeze Expand Repeat Clone ToCopy Alias ConstantPadNd NativeDropout '
    'PixelShuffle Flip Roll'.split())


class Trace:
    """Watches layers within a block: first ones, predicting ones, ones with inputs of either sign.

    Gradients must be on, and every parameter must require them.

    Args:
        layers: The layers with weights, quantized or not.

    Attributes:
        image: What the model takes in; None while it is of no interest.
        first: The layers that get the image or that run before all others, each with whether its
            input is made of integers.
        maybe_negative: The layers whose inputs were not seen to come from a ReLU or the like. They
            can be negative, even if they were not.
        ends: Outputs and losses, in any nesting, to be filled in.
    """

    def __init__(self, layers: Collection[nn.Module]) -> None:
        self.layers = layers
        self.image: Tensor | None = None
        self.first: dict[nn.Module, bool] = {}
        self.maybe_negative: set[nn.Module] = set()
        self.ends: list[Any] = []
        self._is_positive: dict[Any, bool] = {}
        self._made_by: dict[Any, nn.Module] = {}

    def __enter__(self) -> Trace:
        self._handles = [layer.register_forward_pre_hook(self._look) for layer in self.layers]
        self._handles += [layer.register_forward_hook(self._mark) for layer in self.layers]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def predicting(self) -> set[nn.Module]:
        """The layers from whose output an end is computed without another layer between."""
        found: set[nn.Module] = set()
        seen: set[Any] = set()
        waiting = [each.grad_fn for each in tensors(self.ends) if each.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._made_by:
                found.add(self._made_by[node])
            else:
                waiting += [before for before, _ in node.next_functions if before is not None]
        return found

    def _look(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = next(tensors(inputs), None)
        if x is not None and (x.grad_fn is None or not self._never_negative(x.grad_fn)):
            self.maybe_negative.add(layer)
        if self.image is None or x is None or not x.is_floating_point():
            return
        is_image = x.data_ptr() == self.image.data_ptr() and x.shape == self.image.shape
        if is_image or not self.first:
            self.first[layer] = bool(torch.equal(x, x.round()))

    def _never_negative(self, node: Any) -> bool:
        known = self._is_positive.get(node)
        if known is None:
            kind = node.name().rpartition('::')[2].split('Backward')[0]
            before = [each for each, _ in node.next_functions if each is not None]
            known = kind in _NEVER_NEGATIVE or (kind in _KEEP_SIGN and bool(before)
                                                and all(map(self._never_negative, before)))
            self._is_positive[node] = known
        return known

    def _mark(self, layer: nn.Module, _: Any, output: Any) -> None:
        for each in tensors(output):
            if each.grad_fn is not None:
                self._made_by[each.grad_fn] = layer


def tensors(nested: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        for value in nested.values():
            yield from tensors(value)
    elif isinstance(nested, (list, tuple)):
        for value in nested:
            yield from tensors(value)
