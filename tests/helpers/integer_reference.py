"""What an integer graph computes, in Python's integers, written from its definition alone."""
from __future__ import annotations

from fractions import Fraction

import numpy as np

from mmaqd.export.graph import Add, Apply, Codes, Conv, IntegerGraph, MaxPool, Requantize, Upsample


def requantized(accumulator: int, multiplier: int, shift: int, qmin: int, qmax: int) -> int:
    """The code of one accumulator; Python rounds a fraction half to even."""
    return min(max(round(Fraction(accumulator * multiplier, 2**shift)), qmin), qmax)


def run(graph: IntegerGraph, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every edge by name: int64 codes, float32 real numbers.

    Args:
        graph: The graph.
        image: Integers (N, C, H, W).
    """
    edges = {graph.image.name: image.astype(np.int64)}
    for node in graph.nodes:
        edges[node.output] = _RUN[type(node)](graph, node, *(edges[name] for name in node.inputs))
    return edges


def _conv(graph: IntegerGraph, node: Conv, codes: np.ndarray) -> np.ndarray:
    accumulators = _sums(graph, node, codes) + node.bias.reshape(1, -1, 1, 1)
    assert np.abs(accumulators).max(initial=0) <= node.bound
    if node.requantization is None:
        real = accumulators.astype(np.float32) * node.scale.reshape(1, -1, 1, 1)
        return np.maximum(real, np.float32(0)) if node.rectified else real
    return _requantized(graph, node, accumulators)


def _sums(graph: IntegerGraph, node: Conv, codes: np.ndarray) -> np.ndarray:
    weight = graph.weights[node.weight].astype(np.int64)
    (high, wide), (step, across), (far, apart) = node.padding, node.stride, node.dilation
    batch, channels, height, width = codes.shape
    pad = np.broadcast_to(node.pad_codes, (channels, ))
    padded = np.empty((batch, channels, height + 2 * high, width + 2 * wide), np.int64)
    padded[:] = pad.reshape(1, -1, 1, 1)
    padded[:, :, high:high + height, wide:wide + width] = codes
    rows = (padded.shape[2] - far * (weight.shape[2] - 1) - 1) // step + 1
    columns = (padded.shape[3] - apart * (weight.shape[3] - 1) - 1) // across + 1
    sums = np.zeros((batch, len(weight), rows, columns), np.int64)
    per_group, out_per_group = weight.shape[1], len(weight) // node.groups
    for out in range(len(weight)):
        first = out // out_per_group * per_group
        for y in range(weight.shape[2]):
            for x in range(weight.shape[3]):
                window = padded[:, first:first + per_group,
                                y * far:y * far + (rows - 1) * step + 1:step,
                                x * apart:x * apart + (columns - 1) * across + 1:across]
                sums[:, out] += (window * weight[out, :, y, x].reshape(1, -1, 1, 1)).sum(1)
    return sums


def _requantize(graph: IntegerGraph, node: Requantize, codes: np.ndarray) -> np.ndarray:
    return _requantized(graph, node, codes + node.bias)


def _requantized(graph: IntegerGraph, node: Conv | Requantize,
                 accumulators: np.ndarray) -> np.ndarray:
    edge = graph.edges[node.output]
    shape = accumulators.shape
    factors = [
        np.broadcast_to(each.reshape(1, -1, 1, 1), shape).ravel().tolist()
        for each in (node.requantization.multiplier, node.requantization.shift)
    ]
    codes = [
        requantized(a, m, k, edge.qmin, edge.qmax)
        for a, m, k in zip(accumulators.ravel().tolist(), *factors)
    ]
    return np.array(codes, np.int64).reshape(shape)


def _add(graph: IntegerGraph, node: Add, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    edge = graph.edges[node.output]
    return np.clip(a + b, edge.qmin, edge.qmax)


def _max_pool(graph: IntegerGraph, node: MaxPool, codes: np.ndarray) -> np.ndarray:
    (high, wide), (step, across), kernel = node.padding, node.stride, node.kernel
    assert node.dilation == (1, 1) and not node.ceil_mode
    lowest = np.iinfo(np.int64).min
    padded = np.pad(codes, ((0, 0), (0, 0), (high, high), (wide, wide)), constant_values=lowest)
    rows = (padded.shape[2] - kernel[0]) // step + 1
    columns = (padded.shape[3] - kernel[1]) // across + 1
    windows = [
        padded[:, :, y:y + (rows - 1) * step + 1:step, x:x + (columns - 1) * across + 1:across]
        for y in range(kernel[0]) for x in range(kernel[1])
    ]
    return np.max(windows, axis=0)


def _upsample(graph: IntegerGraph,
              node: Upsample,
              codes: np.ndarray,
              like: np.ndarray | None = None) -> np.ndarray:
    size = like.shape[2:] if like is not None else [
        side * factor for side, factor in zip(codes.shape[2:], node.factor)
    ]
    rows, columns = ([
        place * codes.shape[axis] // size[axis - 2] for place in range(size[axis - 2])
    ] for axis in (2, 3))
    return codes[:, :, rows][:, :, :, columns]


def _apply(graph: IntegerGraph, node: Apply, x: np.ndarray) -> np.ndarray:
    source = graph.edges[node.inputs[0]]
    assert isinstance(source, Codes) and node.function == 'dequantize'
    return x.astype(np.float32) * np.float32(source.unit) + np.float32(source.offset)


_RUN = {
    Conv: _conv,
    Requantize: _requantize,
    Add: _add,
    MaxPool: _max_pool,
    Upsample: _upsample,
    Apply: _apply,
}
