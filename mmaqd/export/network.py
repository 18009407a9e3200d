"""The twin: an integer graph run by torch, in integers only; the reference of all engines."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmaqd.functional.requantize import requantize

from .graph import (Add, Apply, Codes, Conv, FloatConv, IntegerGraph, MaxPool, Node, Quantize,
                    Requantization, Requantize, Upsample)
from .serialize import graph_from_tensors, graph_to_tensors

_EXACT_IN_FLOAT32 = 2**24


class IntegerNetwork(nn.Module):
    """Runs an integer graph.

    Integers travel in floating-point tensors wherever these hold them exactly (float32 up to 2^24,
    float64 beyond), since torch's convs of integers are slow; all numbers that are computed are
    integers until predictions are scaled.

    Its state dict is the graph itself, so an empty network becomes the one that is loaded.

    Args:
        graph: The graph; None for an empty network, which a state dict is loaded into.

    Shape:
        image (N, C, H, W), integers 0..255 of any dtype; a tuple of predictions (N, C_i, H_i, W_i)
        over the levels for each kind.
    """

    def __init__(self, graph: IntegerGraph | None = None) -> None:
        super().__init__()
        self.graph = graph
        self.steps = nn.ModuleList()
        if graph is not None:
            self._set_graph(graph)

    def forward(self, image: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        edges = self.run(image, keep=False)
        return tuple(tuple(edges[name] for name in kind) for kind in self.graph.outputs)

    @torch.no_grad()
    def run(self, image: Tensor, keep: bool = True) -> dict[str, Tensor]:
        """Every edge by name, codes as float32 tensors; without ``keep`` only what is left at last.

        Raises:
            RuntimeError: The network is empty.
        """
        if self.graph is None:
            raise RuntimeError('The integer network is empty: load the checkpoint that '
                               'tools/deployment/convert_integer.py wrote.')
        edges = {self.graph.image.name: image.float()}
        for node, step in zip(self.graph.nodes, self.steps):
            edges[node.output] = step(*(edges[name] for name in node.inputs))
            for name in () if keep else self._released[node.output]:
                del edges[name]
        return edges

    def _set_graph(self, graph: IntegerGraph) -> None:
        self.graph = graph
        self.steps = nn.ModuleList(_step(graph, node) for node in graph.nodes)
        kept = {name for kind in graph.outputs for name in kind}
        last_use = {name: node.output for node in graph.nodes for name in node.inputs}
        self._released: dict[str, list[str]] = {node.output: [] for node in graph.nodes}
        for name, output in last_use.items():
            if name not in kept:
                self._released[output].append(name)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        if self.graph is not None:
            for key, tensor in graph_to_tensors(self.graph).items():
                destination[prefix + key] = tensor

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: Any,
                              strict: bool, missing_keys: list, *args: Any) -> None:
        own = {
            key[len(prefix):]: value
            for key, value in state_dict.items() if key.startswith(prefix)
        }
        if own:
            self._set_graph(graph_from_tensors(own))
        else:
            missing_keys.append(f'{prefix}graph')


def _step(graph: IntegerGraph, node: Node) -> nn.Module:
    return _STEPS[type(node)](graph, node)


class _Step(nn.Module):
    """One node."""

    def __init__(self, graph: IntegerGraph, node: Node) -> None:
        super().__init__()
        self.node = node
        self.edge = graph.edges[node.output]
        self.source = graph.edges[node.inputs[0]]

    def _constant(self, name: str, array: np.ndarray) -> None:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        self.register_buffer(name, tensor, persistent=False)


class _Requantizing(_Step):
    """A node whose codes are requantized accumulators."""

    def _set_requantization(self, requantization: Requantization, shape: tuple[int, ...]) -> None:
        self._constant('multiplier', requantization.multiplier.reshape(shape))
        self._constant('shift', requantization.shift.reshape(shape))

    def _requantized(self, accumulators: Tensor) -> Tensor:
        return requantize(accumulators.long(), self.multiplier, self.shift, self.edge.qmin,
                          self.edge.qmax).float()


class _ConvStep(_Requantizing):

    def __init__(self, graph: IntegerGraph, node: Conv) -> None:
        super().__init__(graph, node)
        weight = graph.weights[node.weight]
        magnitude = np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max(initial=0)
        exact = magnitude * self.source.magnitude <= _EXACT_IN_FLOAT32
        self._constant('weight', weight.astype(np.float32 if exact else np.float64))
        self._constant('bias', node.bias.reshape(1, -1, 1, 1))
        self._constant('pad', node.pad_codes.reshape(1, -1, 1, 1))
        if node.requantization is not None:
            self._set_requantization(node.requantization, (1, -1, 1, 1))
        else:
            self._constant('scale', node.scale.reshape(1, -1, 1, 1))

    def forward(self, codes: Tensor) -> Tensor:
        node = self.node
        products = F.conv2d(
            _padded(codes, self.pad, node.padding).to(self.weight.dtype), self.weight, None,
            node.stride, 0, node.dilation, node.groups)
        accumulators = products.long() + self.bias
        if node.requantization is not None:
            return self._requantized(accumulators)
        real = accumulators.float() * self.scale
        return real.clamp_(min=0) if node.rectified else real


def _padded(codes: Tensor, pad: Tensor, padding: tuple[int, int]) -> Tensor:
    """``codes`` padded by a number for each channel."""
    height, width = padding
    sides = (width, width, height, height)
    if not pad.any():
        return F.pad(codes, sides)
    return F.pad(codes - pad, sides) + pad


class _FloatConvStep(_Step):

    def __init__(self, graph: IntegerGraph, node: FloatConv) -> None:
        super().__init__(graph, node)
        self._constant('weight', graph.weights[node.weight])
        self._constant('bias', node.bias)
        self._constant('pad', node.pad.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        node = self.node
        y = F.conv2d(
            _padded(x, self.pad, node.padding), self.weight, self.bias, node.stride, 0,
            node.dilation, node.groups)
        return y.relu_() if node.rectified else y


class _QuantizeStep(_Step):

    def forward(self, x: Tensor) -> Tensor:
        codes = ((x - self.edge.offset) / self.edge.unit).round_()
        return codes.clamp_(self.edge.qmin, self.edge.qmax)


class _RequantizeStep(_Requantizing):

    def __init__(self, graph: IntegerGraph, node: Requantize) -> None:
        super().__init__(graph, node)
        self._set_requantization(node.requantization, (1, 1, 1, 1))

    def forward(self, codes: Tensor) -> Tensor:
        return self._requantized(codes + self.node.bias)


class _AddStep(_Step):

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b).clamp_(self.edge.qmin, self.edge.qmax)


class _MaxPoolStep(_Step):

    def forward(self, codes: Tensor) -> Tensor:
        node = self.node
        return F.max_pool2d(codes, node.kernel, node.stride, node.padding, node.dilation,
                            node.ceil_mode)


class _UpsampleStep(_Step):

    def forward(self, codes: Tensor, like: Tensor | None = None) -> Tensor:
        if like is not None:
            return F.interpolate(codes, size=like.shape[2:], mode='nearest')
        size = [side * factor for side, factor in zip(codes.shape[2:], self.node.factor)]
        return F.interpolate(codes, size=size, mode='nearest')


class _ApplyStep(_Step):

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.source, Codes):
            return x * self.source.unit + self.source.offset
        return getattr(torch, self.node.function)(x)


_STEPS = {
    Conv: _ConvStep,
    FloatConv: _FloatConvStep,
    Quantize: _QuantizeStep,
    Requantize: _RequantizeStep,
    Add: _AddStep,
    MaxPool: _MaxPoolStep,
    Upsample: _UpsampleStep,
    Apply: _ApplyStep,
}
