"""From a captured detector to its integer graph."""
from __future__ import annotations

from typing import Callable, Mapping, Optional

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from .capture import Captured, capture
from .emit import Emitter
from .graph import IntegerGraph
from .rules import Reader
from .storage import Format, Streams, format_of_readings, ordered, readings, root, stream_format
from .values import Image, Value

STREAM_BIT_WIDTH = 8


def lower(captured: Captured,
          mean: np.ndarray,
          stream_units: Callable[[Streams, Reader], Mapping[Value, float]],
          stream_bit_width: int = STREAM_BIT_WIDTH) -> IntegerGraph:
    """Lower the operators of a detector to integers.

    Args:
        captured: The operators.
        mean: Integer mean that was subtracted from the image, (C,).
        stream_units: Called with the streams; gives each one's unit by its leader.
        stream_bit_width: Bits of the codes of skip and top-down connections, 4 to 16. The engines
            run 8.

    Raises:
        UnsupportedOperator: The detector computes something that has no integer form.
        AccumulatorOverflow: The sum of a conv may leave 32 bits.
    """
    reader = Reader(captured, mean)
    reader.read()
    results = [tuple(reader.values[node] for node in kind) for kind in captured.outputs]
    values = ordered([value for kind in results for value in kind])
    streams = Streams(values)
    formats = _formats(values, streams, stream_units(streams, reader), stream_bit_width)
    emitter = Emitter(formats, mean)
    for value in values:  # in order, so that none is emitted deep inside another
        if root(value) in formats:
            emitter.stored(value)
    outputs = tuple(tuple(emitter.real(value) for value in kind) for kind in results)
    return emitter.graph(outputs)


def _formats(values: list[Value], streams: Streams, units: Mapping[Value, float],
             bit_width: int) -> dict[Value, Format]:
    """What each root that a conv or an addition reads is stored in."""
    read = readings(values)
    formats = {}
    for value in values:
        if root(value) is not value or isinstance(value, Image):
            continue
        if value in streams:
            formats[value] = stream_format(value, units[streams.leader(value)], bit_width)
        elif value in read:
            formats[value] = format_of_readings(value, read[value].values())
    return formats


def integer_mean(detector: nn.Module, channels: int = 3) -> np.ndarray:
    """The mean that the data preprocessor of a detector subtracts, (C,).

    Raises:
        ValueError: It is no integer, or the image is divided by a std: the first conv would not
            read integers.
    """
    preprocessor = detector.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False):
        return np.zeros(channels, np.int64)
    mean, std = (_vector(getattr(preprocessor, name), channels) for name in ('mean', 'std'))
    if (mean != np.round(mean)).any() or (std != 1).any() or mean.min() < 0 or mean.max() > 255:
        raise ValueError(
            'model.data_preprocessor: an integer network reads the 8-bit image as it is, so mean '
            f'must be integers of 0..255 and std 1, but got {mean.tolist()} and {std.tolist()}. '
            "Train with integers (mmaqd.FoldInputStd loads an ImageNet checkpoint that expects a "
            'std).')
    return mean.astype(np.int64)


def _vector(value: Optional[Tensor], channels: int) -> np.ndarray:
    flat = torch.as_tensor(value).double().flatten()
    return flat.expand(channels).cpu().numpy() if flat.numel() == 1 else flat.cpu().numpy()


def lower_detector(detector: nn.Module,
                   height: int,
                   width: int,
                   stream_units: Callable[[Streams, Reader], Mapping[Value, float]],
                   stream_bit_width: int = STREAM_BIT_WIDTH) -> IntegerGraph:
    """:func:`capture` and :func:`lower` of a detector with its own mean."""
    mean = integer_mean(detector)
    captured = capture(detector, height, width, len(mean))
    return lower(captured, mean, stream_units, stream_bit_width)
