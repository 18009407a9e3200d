"""From a captured detector to its integer graph."""
from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np
import torch.nn as nn
from torch import Tensor

from mmaqd.layers import QuantConv2d, QuantLayer

from .capture import Captured, capture
from .emit import Emitter
from .graph import IntegerGraph
from .image import integer_mean
from .rules import Reader, UnsupportedOperator
from .storage import (Format, StreamCodes, Streams, format_of_readings, ordered, readings, root,
                      stream_format)
from .streams import StreamUnits, measured_units, stream_codes
from .values import Image, Value

STREAM_BIT_WIDTH = 8


def lower(captured: Captured,
          mean: np.ndarray,
          stream_units: StreamUnits,
          stream_bit_width: int = STREAM_BIT_WIDTH,
          allow_float: bool = False) -> IntegerGraph:
    """Lower the operators of a detector to integers.

    Args:
        captured: The operators.
        mean: Integer mean that was subtracted from the image, (C,).
        stream_units: Gives the units of the streams that were not trained.
        stream_bit_width: Bits of the codes of these skip and top-down connections, 4 to 16. The
            engines run 8.
        allow_float: Whether convs that were left in float stay so, between integers; engines
            need not agree to the bit behind them.

    Raises:
        UnsupportedOperator: The detector computes something that has no integer form.
        AccumulatorOverflow: The sum of a conv may leave 32 bits.
    """
    reader = Reader(captured, mean, allow_float)
    reader.read()
    results = [tuple(reader.values[node] for node in kind) for kind in captured.outputs]
    values = ordered([value for kind in results for value in kind])
    streams = Streams(values)
    codes = stream_codes(streams, reader, stream_units, stream_bit_width)
    formats = _formats(values, streams, codes, reader.trained)
    emitter = Emitter(formats, mean)
    for value in values:  # in order, so that none is emitted deep inside another
        if root(value) in formats:
            emitter.stored(value)
    outputs = tuple(tuple(emitter.real(value) for value in kind) for kind in results)
    return emitter.graph(outputs)


def _formats(values: list[Value], streams: Streams, codes: Mapping[Value, StreamCodes],
             trained: Mapping[Value, StreamCodes]) -> dict[Value, Format]:
    """What each root that a conv or an addition reads is stored in."""
    read = readings(values)
    formats = {}
    for value in values:
        if root(value) is not value or isinstance(value, Image):
            continue
        if value in streams:
            formats[value] = stream_format(value, codes[streams.leader(value)])
        elif value in trained:
            formats[value] = stream_format(value, trained[value])
        elif value in read:
            formats[value] = format_of_readings(value, read[value].values())
    return formats


def lower_detector(detector: nn.Module,
                   images: Sequence[Tensor],
                   stream_bit_width: int = STREAM_BIT_WIDTH,
                   allow_float: bool = False) -> IntegerGraph:
    """The integer graph of a trained or calibrated detector.

    Args:
        detector: A low-bit detector in float arithmetic.
        images: Normalized images, (N, C, H, W) each, from which the units of skip and top-down
            connections are taken. The first one's size is that at which the detector is captured;
            the graph fits any.
        stream_bit_width, allow_float: As for :func:`lower`.

    Raises:
        ValueError: There is no image, or the data preprocessor leaves no integers.
        UninitializedIntervalError: A quantizer has no interval yet.
        UnsupportedOperator: A quantized layer is no conv, or as for :func:`lower`.
        AccumulatorOverflow: As for :func:`lower`.
    """
    if not images:
        raise ValueError('No image to calibrate skip and top-down connections with.')
    _refuse_layers(detector)
    mean = integer_mean(detector, images[0].shape[1])
    captured = capture(detector, *images[0].shape[2:], len(mean))
    return lower(captured, mean, measured_units(captured, images, stream_bit_width),
                 stream_bit_width, allow_float)


def _refuse_layers(detector: nn.Module) -> None:
    """Name the quantized layers that have no integer form, before the detector is captured."""
    others = {
        name: type(module).__name__
        for name, module in detector.named_modules()
        if isinstance(module, QuantLayer) and not isinstance(module, QuantConv2d)
    }
    if others:
        name = next(iter(others))
        more = f' (so it is with {len(others) - 1} others)' if len(others) > 1 else ''
        raise UnsupportedOperator(
            f'{name}: a {others[name]} has no integer form, only a QuantConv2d has one{more}. '
            'Detectors with such layers run simulated, in PyTorch: --allow-float is for convs '
            'only.')
