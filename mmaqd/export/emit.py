"""Values to the nodes of an integer graph."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from .graph import (Add, Apply, Codes, Conv, Edge, FloatConv, IntegerGraph, MaxPool, Node, Quantize,
                    Real, Requantization, Requantize, Upsample, leaves_int16)
from .multipliers import choose_multipliers
from .spread import choose_spread
from .storage import Format, root
from .values import Applied, ConvValue, Image, Pooled, Quantized, Sum, Upsampled, Value

_INT32 = 2**31 - 1
# round(q (2^12 + 1) / 2^12) is q for all codes: what constant channels are requantized by.
_KEEPS_CODES = (2**12 + 1, 12)
_LEAST_RATIO = 2.0**-80
_INVISIBLE = 2.0**-4  # codes; a channel whose sums give no more is a constant


class AccumulatorOverflow(ValueError):
    """The sum of a conv may leave 32 bits."""


@dataclass
class _Channels:
    """The integers of a conv's output channels, arrays of (C,) but the weights."""

    weights: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bias_first: bool  # since products could leave int16, see graph.saturates_int16

    @property
    def magnitude(self) -> np.ndarray:
        """Largest size of a sum of products."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


class Emitter:
    """Makes the nodes that compute values, each once for each kind of codes it is read in.

    Args:
        formats: What the roots are stored in.
        mean: Integer mean of the image, (C,).
    """

    def __init__(self, formats: dict[Value, Format], mean: np.ndarray) -> None:
        self.formats = formats
        self.mean = mean
        self.image = Codes('input', 0, 255, 1.0)
        self.edges: dict[str, Edge] = {'input': self.image}
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self.notes: list[str] = []
        self._stored: dict[Value, str] = {}
        self._requantized: dict[tuple, str] = {}
        self._real: dict[Value, str] = {}
        self._spreads: dict[str, int] = {}

    def graph(self, outputs: tuple[tuple[str, ...], ...]) -> IntegerGraph:
        """Everything emitted so far."""
        return IntegerGraph(self.image, self.edges, tuple(self.nodes), self.weights, outputs,
                            tuple(self.notes))

    def real(self, value: Value) -> str:
        """The edge of a prediction."""
        if value not in self._real:
            self._real[value] = self._emit_real(value)
        return self._real[value]

    def stored(self, value: Value) -> str:
        """The edge of the codes that a value is stored in."""
        if value not in self._stored:
            self._stored[value] = self._emit_stored(value)
        return self._stored[value]

    def _emit_real(self, value: Value) -> str:
        if isinstance(value, ConvValue):
            return self._float_conv(value) if value.in_float else self._conv(value, None)
        if isinstance(value, (Pooled, Upsampled)) and root(value) not in self.formats:
            return self._resampled(value, self.real, Real(value.name))
        if isinstance(value, Applied):
            return self._add(
                Apply(value.name, (self.real(value.source), ), value.name, value.function),
                Real(value.name))
        name = f'{value.name}.real'
        return self._add(Apply(name, (self.stored(value), ), name), Real(name))

    def _emit_stored(self, value: Value) -> str:
        if isinstance(value, Image):
            return self.image.name
        form = self.formats[root(value)]
        if isinstance(value, ConvValue):
            return self._quantize(value, form) if value.in_float else self._conv(value, form)
        edge = _codes(value.name, form)
        if isinstance(value, Sum):
            inputs = tuple(self.stored(each) for each in value.operands)
            return self._add(Add(value.name, inputs, edge.name), edge)
        return self._resampled(value, self.stored, edge)

    def _resampled(self, value: Pooled | Upsampled, edge_of: Callable[[Value], str],
                   edge: Edge) -> str:
        """Max-pooling or upsampling, of codes or real numbers."""
        source = edge_of(value.source)
        if isinstance(value, Pooled):
            return self._add(MaxPool(value.name, (source, ), edge.name, **value.geometry), edge)
        like = self._other_operand(value)
        if like is not None:
            return self._add(Upsample(value.name, (source, edge_of(like)), edge.name), edge)
        (height, width), (to_height, to_width) = value.sizes
        if to_height % height or to_width % width:
            raise NotImplementedError(f'{value.name}: upsampling from {value.sizes[0]} to '
                                      f'{value.sizes[1]} is by no whole factor.')
        factor = (to_height // height, to_width // width)
        return self._add(Upsample(value.name, (source, ), edge.name, factor), edge)

    def _other_operand(self, value: Upsampled) -> Value | None:
        """What an upsampled value is added to; its size is the one to upsample to."""
        for each in self.formats:
            if isinstance(each, Sum) and value in each.operands:
                return each.operands[1 - each.operands.index(value)]
        return None

    def _quantize(self, value: ConvValue, form: Format) -> str:
        name = f'{value.name}.codes'
        return self._add(
            Quantize(name, (self.real(value), ), name), _codes(name, form, value.rectified))

    def _float_conv(self, value: ConvValue) -> str:
        weights = value.codes * value.factor.reshape(-1, 1, 1, 1)
        offset, pad = value.offset, np.zeros(1)
        if isinstance(value.source, Image):
            offset, pad = offset - _sum_with(weights, self.mean, value.geometry[3]), self.mean
            source = self.image.name
        else:
            source = self.real(value.source)
        weight = self._weight(value.layer, weights.astype(np.float32))
        node = FloatConv(value.name, (source, ), value.name, weight, offset.astype(np.float32),
                         *value.geometry, pad.astype(np.float32), value.rectified)
        return self._add(node, Real(value.name))

    def _read(self, value: ConvValue) -> str:
        """The edge that a conv reads."""
        source, wanted = self.stored(value.source), value.quantized
        if wanted is None:
            return source
        given = self.edges[source]
        form = Format(wanted.grid.qmin, wanted.grid.qmax, wanted.unit, wanted.offset)
        if form == Format(given.qmin, given.qmax, given.unit, given.offset):
            return source
        key = (source, wanted.key)
        if key not in self._requantized:
            self._requantized[key] = self._requantize(given, form, value.name)
        return self._requantized[key]

    def _requantize(self, given: Codes, form: Format, reader: str) -> str:
        offset = np.array([(given.offset - form.offset) / form.unit])
        low, high = np.array([given.qmin]), np.array([given.qmax])
        chosen, bias = choose_multipliers(
            np.array([given.unit / form.unit]), low, high, offset, form.qmin, form.qmax)
        name = f'{reader}.input'
        node = Requantize(name, (given.name, ), name, chosen, int(bias[0]))
        return self._add(node, _codes(name, form))

    def _conv(self, value: ConvValue, form: Format | None) -> str:
        source = self._read(value)
        pad, channels = self._channels(value, self.edges[source])
        _check_bound(value, channels.magnitude.max(initial=0))
        self._spread(value, self.edges[source], channels, form)
        bias, requantization, scale = self._scales(value, channels, form)
        if channels.bias_first and not leaves_int16(self.edges[source], channels.weights):
            channels.bias_first = False  # its largest weights were dropped
            bias, requantization, scale = self._scales(value, channels, form)
        bound = np.abs(np.stack([channels.low + bias, channels.high + bias])).max(initial=0)
        _check_bound(value, max(bound, np.abs(bias).max(initial=0)))
        name = value.name
        if name in self.edges:  # it is a prediction, and read by other convs too
            name += '.real' if form is None else '.codes'
        weight = self._weight(value.layer, channels.weights.astype(np.int8))
        node = Conv(name, (source, ), name, weight, bias, *value.geometry, pad, int(bound),
                    requantization, scale, form is None and value.rectified)
        return self._add(node, Real(name) if form is None else _codes(name, form, value.rectified))

    def _channels(self, value: ConvValue, source: Codes) -> tuple[np.ndarray, _Channels]:
        """Codes of padding, and the channels with positive factors, in terms of the codes read."""
        weights, factor, offset = value.codes.astype(np.int64), value.factor, value.offset
        groups = value.geometry[3]
        if value.quantized is None:
            pad = self.mean
            offset = offset - factor * _sum_with(weights, self.mean, groups)
        else:
            pad = _code_of_zero(value.quantized)
            offset = offset + factor * weights.sum((1, 2, 3)) * (
                value.quantized.offset / value.quantized.unit)
        weights = self._flipped(value, weights, factor < 0)
        flat = weights.reshape(len(weights), -1)
        ends = flat * source.qmin, flat * source.qmax
        return pad, _Channels(weights, np.abs(factor), offset,
                              np.minimum(*ends).sum(1),
                              np.maximum(*ends).sum(1), leaves_int16(source, weights))

    def _spread(self, value: ConvValue, source: Codes, channels: _Channels,
                form: Format | None) -> None:
        """Multiply the weights of a layer by a number, the same one at all of its uses."""
        if value.layer not in self._spreads:
            unit, zero = (1.0, 0.0) if form is None else (form.unit, form.offset)
            self._spreads[value.layer] = choose_spread(
                channels.weights, source.qmax - min(source.qmin, 0), channels.magnitude,
                np.maximum(channels.factor / unit, _LEAST_RATIO), (channels.offset - zero) / unit,
                form)
        spread = self._spreads[value.layer]
        for name in ('weights', 'low', 'high'):
            setattr(channels, name, getattr(channels, name) * spread)
        channels.factor = channels.factor / spread

    def _flipped(self, value: ConvValue, weights: np.ndarray, flip: np.ndarray) -> np.ndarray:
        weights = np.where(flip[:, None, None, None], -weights, weights)
        beyond = int((weights > 127).sum())
        if beyond:
            self.notes.append(f'{value.name}: {beyond} weight codes of -128 in channels whose BN '
                              'has a negative weight became 127 where 128 was meant.')
        return np.minimum(weights, 127)

    def _scales(self, value: ConvValue, channels: _Channels,
                form: Format | None) -> tuple[np.ndarray, Requantization | None, np.ndarray | None]:
        """Bias, and what the accumulators are multiplied by."""
        if form is None:
            bias, scale = self._real_scales(value, channels)
            return bias, None, scale
        ratio = np.maximum(channels.factor / form.unit, _LEAST_RATIO)
        offset = (channels.offset - form.offset) / form.unit
        qmin = _codes('', form, value.rectified).qmin
        offset = _visible_offset(offset, ratio, channels, qmin, form.qmax)
        chosen, bias = choose_multipliers(ratio, channels.low, channels.high, offset, qmin,
                                          form.qmax, channels.bias_first,
                                          self._spreads[value.layer])
        lost = channels.magnitude * ratio
        self._note_inexact(value, np.minimum(lost, form.qmax) * np.abs(chosen.factor / ratio - 1))
        constant = (np.abs(bias) + channels.magnitude > _INT32) | (lost < _INVISIBLE)
        self._note_lost(value, lost[constant])
        codes = np.clip(np.round(offset), qmin, form.qmax)
        _hold(channels, chosen, bias, constant, codes)
        return bias.astype(np.int64), chosen, None

    def _real_scales(self, value: ConvValue, channels: _Channels) -> tuple[np.ndarray, np.ndarray]:
        """Bias and scale of predictions; a bias that 32 bits don't hold leaves no room for sums."""
        with np.errstate(divide='ignore', invalid='ignore'):
            bias = np.round(channels.offset / channels.factor)
        constant = ~(np.abs(bias) + channels.magnitude <= _INT32)
        self._note_lost(value, (channels.magnitude * channels.factor)[constant] * 2**12)
        _drop(channels, constant)
        bias[constant] = np.sign(channels.offset[constant]) * 2**24
        channels.factor[constant] = np.abs(channels.offset[constant]) / 2**24
        return bias.astype(np.int64), channels.factor.astype(np.float32)

    def _note_lost(self, value: ConvValue, lost: np.ndarray) -> None:
        """Say what constant channels leave out, in codes, if it can be seen."""
        if (lost > 0.5).any():
            self.notes.append(f'{value.name}: {int((lost > 0.5).sum())} channels became constant, '
                              'since their bias needs more than 32 bits; it left out at most '
                              f'{lost.max():.2g} steps.')

    def _note_inexact(self, value: ConvValue, error: np.ndarray) -> None:
        """Say where no multiplier comes near a factor; error in codes at the largest sum."""
        if (error > 1).any():
            self.notes.append(
                f'{value.name}: {int((error > 1).sum())} channels are requantized by a '
                f'factor that is off by up to {error.max():.2g} codes at the top.')

    def _weight(self, layer: str, weights: np.ndarray) -> str:
        """Key of weights, one for all uses of a layer with the same codes."""
        for number in range(len(self.weights) + 1):
            key = layer if number == 0 else f'{layer}#{number}'
            if key not in self.weights:
                self.weights[key] = weights
            if np.array_equal(self.weights[key], weights):
                return key
        raise AssertionError('a free key is found after as many as there are')

    def _add(self, node: Node, edge: Edge) -> str:
        assert edge.name not in self.edges, edge.name
        self.nodes.append(node)
        self.edges[edge.name] = edge
        return edge.name


def _codes(name: str, form: Format, rectified: bool = False) -> Codes:
    qmin = max(form.qmin, 0) if rectified and form.offset == 0 else form.qmin
    return Codes(name, qmin, form.qmax, form.unit, form.offset)


def _code_of_zero(quantized: Quantized) -> np.ndarray:
    """The code nearest to the real number 0, (1,)."""
    nearest = round(-quantized.offset / quantized.unit)
    return np.array([min(max(nearest, quantized.grid.qmin), quantized.grid.qmax)])


def _sum_with(weights: np.ndarray, per_channel: np.ndarray, groups: int) -> np.ndarray:
    """Sum of all weights of an output channel times a number for each input channel, (C_out,)."""
    channels = per_channel.reshape(groups, 1, -1)
    return (weights.sum(
        (2, 3)).reshape(groups, -1, channels.shape[2]) * channels).sum(2).reshape(-1)


def _hold(channels: _Channels, chosen: Requantization, bias: np.ndarray, constant: np.ndarray,
          codes: np.ndarray) -> None:
    """Let channels have constant codes.

    Their weights stay on their grid, so that they can be packed, where a factor next to nothing
    makes a quarter of a code at most of the sums, and 32 bits hold the codes divided by it.
    """
    shift = 2 + np.ceil(np.log2(np.maximum(channels.magnitude, 1))).astype(np.int64)
    fits = np.ldexp(np.abs(codes), shift) + channels.magnitude <= _INT32
    quiet = constant & fits & (not channels.bias_first)
    chosen.multiplier[quiet], chosen.shift[quiet] = 1, shift[quiet]
    bias[quiet] = np.ldexp(codes, shift)[quiet]
    dropped = constant & ~quiet
    _drop(channels, dropped)
    chosen.multiplier[dropped], chosen.shift[dropped] = _KEEPS_CODES
    bias[dropped] = codes[dropped]


def _drop(channels: _Channels, constant: np.ndarray) -> None:
    """Let channels whose output does not depend on the input have no weights."""
    channels.weights[constant] = 0
    channels.low[constant] = channels.high[constant] = 0


def _visible_offset(offset: np.ndarray, ratio: np.ndarray, channels: _Channels, qmin: int,
                    qmax: int) -> np.ndarray:
    """Offsets in codes, no further out than where every output is clipped."""
    above = qmax + 1 - channels.low * ratio
    below = qmin - 1 - channels.high * ratio
    return np.clip(offset, below, above)


def _check_bound(value: ConvValue, bound: float) -> None:
    if bound > _INT32:
        raise AccumulatorOverflow(
            f'{value.name}: its sums may reach {int(bound)}, more than 32 bits hold ({_INT32}). '
            'Give its weights or inputs fewer bits.')
