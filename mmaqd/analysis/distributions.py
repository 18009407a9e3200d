"""What quantizers do to the weights and inputs of each layer: noise, histograms, grid points."""
from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import inf, log10
from typing import Any, Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn as nn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmaqd.quantizers import modes_kept

from .switching import quantized_layers

_PARTS = {'weight_quantizer': 'weights', 'input_quantizer': 'inputs'}
_SAMPLES_PER_CALL = 2**13
_BINS = 200
_VALUES_COLOUR, _GRID_COLOUR = 'tab:blue', 'tab:orange'


@dataclass(frozen=True)
class QuantizedTensor:
    """What a quantizer was given, after its normalization if it has one, and what it made of it.

    Attributes:
        layer: Name of the layer.
        part: ``'weights'`` or ``'inputs'``.
        bits: Bit width.
        signal: Mean square of the values.
        noise: Mean square of what the quantizer changed.
        values: (N,), samples of the values; in steps of the quantizer (``in_steps``) if
            that has a scale for each channel or pyramid level.
        grid_points: (G,), ascending, those that occur, in the unit of ``values``.
        in_steps: Whether that unit is one step of the quantizer.
    """

    layer: str
    part: str
    bits: int
    signal: float
    noise: float
    values: Tensor
    grid_points: Tensor
    in_steps: bool

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise ratio in dB; infinite where nothing changed."""
        if not self.noise:
            return inf
        return 10 * log10(self.signal / self.noise) if self.signal else -inf


class _Collector:
    """Sums and samples of the tensors that reach one quantizer."""

    def __init__(self, quantizer: nn.Module) -> None:
        self.quantizer = quantizer
        self.in_steps = quantizer.granularity != 'per_tensor'
        self.count, self.signal, self.noise = 0, 0.0, 0.0
        self.values: list[Tensor] = []
        self.grid_points: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        normalized = self.quantizer.kernel.normalized(x)
        quantized = self.quantizer(x)
        self.count += x.numel()
        self.signal += float(normalized.double().square().sum())
        self.noise += float((quantized - normalized).double().square().sum())
        if self.in_steps:
            normalized = normalized / self.quantizer.scale.view(-1, *[1] * (x.dim() - 1))
            quantized = self.quantizer.quantize(x)
        self.values.append(_samples(normalized).cpu())
        self.grid_points.append(quantized.unique().float().cpu())

    def result(self, layer: str, part: str) -> QuantizedTensor:
        return QuantizedTensor(
            layer=layer,
            part=part,
            bits=self.quantizer.bit_width,
            signal=self.signal / self.count,
            noise=self.noise / self.count,
            values=torch.cat(self.values),
            grid_points=torch.cat(self.grid_points).unique(),
            in_steps=self.in_steps)


@torch.no_grad()
def quantized_tensors(model: nn.Module, batches: Iterable[Any]) -> list[QuantizedTensor]:
    """Measure what the quantizers of a model do to its weights and to the inputs of its layers.

    The inputs of a conv that is shared over the pyramid levels are those of all levels together.

    Args:
        model: A detector with quantized layers, whose intervals have values.
        batches: What its data preprocessor takes.

    Returns:
        In the order of the layers, the weights before the inputs. There is
        nothing for inputs that have no quantizer or that no data reached.

    Raises:
        ValueError: The model has no quantized layer.
    """
    layers = quantized_layers(model)
    collectors = {
        (name, role): _Collector(getattr(conv, role))
        for name, conv in layers.items()
        for role in _PARTS if getattr(conv, role) is not None
    }
    with ExitStack() as stack:
        stack.enter_context(modes_kept(model))
        model.eval()
        for (name, role), collector in collectors.items():
            if role == 'weight_quantizer':
                collector.add(layers[name].channels_first_weight)
            else:
                handle = layers[name].register_forward_pre_hook(_adding_input(collector))
                stack.callback(handle.remove)
        for batch in batches:
            model(**model.data_preprocessor(batch, False), mode='tensor')
    return [
        collector.result(name, _PARTS[role]) for (name, role), collector in collectors.items()
        if collector.count
    ]


def noise_table(tensors: Sequence[QuantizedTensor]) -> list[dict[str, Any]]:
    """A row for each layer with bits and signal to quantization noise ratio (dB) of both parts.

    Args:
        tensors: From :func:`quantized_tensors`.

    Returns:
        Rows for :func:`mmaqd.analysis.format_rows`, None where a layer has no
        quantizer.
    """
    rows: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        row = rows.setdefault(
            tensor.layer, {
                'layer': tensor.layer,
                **{
                    f'{part}: {what}': None
                    for part in _PARTS.values()
                    for what in ('bits', 'SQNR (dB)')
                }
            })
        row[f'{tensor.part}: bits'] = tensor.bits
        row[f'{tensor.part}: SQNR (dB)'] = tensor.sqnr
    return list(rows.values())


def plot_noise(tensors: Sequence[QuantizedTensor]) -> Figure:
    """Draw the signal to quantization noise ratio of each layer: higher is better.

    Args:
        tensors: From :func:`quantized_tensors`.

    Returns:
        A panel for the weights and one for the inputs.
    """
    layers = list(dict.fromkeys(tensor.layer for tensor in tensors))
    figure = Figure(figsize=(max(6.0, 0.3 * len(layers)), 7.5), layout='tight')
    panels = figure.subplots(2, 1, sharex=True)
    for panel, part in zip(panels, _PARTS.values()):
        shown = [tensor for tensor in tensors if tensor.part == part]
        bars = panel.bar([layers.index(tensor.layer) for tensor in shown],
                         [tensor.sqnr for tensor in shown],
                         color=_VALUES_COLOUR)
        panel.bar_label(bars, [f'{tensor.bits}' for tensor in shown], fontsize=7)
        panel.set_title(f'{part}: signal to quantization noise, with the number of bits')
        panel.set_ylabel('dB')
        panel.grid(axis='y', alpha=0.3)
    panels[-1].set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    return figure


def plot_histograms(tensors: Sequence[QuantizedTensor]) -> Figure:
    """Draw the histogram of weights and inputs of each layer, with the grid points in it.

    Args:
        tensors: From :func:`quantized_tensors`, of the layers to show,
            a row for each.

    Returns:
        To be saved by its ``savefig``.

    Raises:
        ValueError: ``tensors`` is empty.
    """
    if not tensors:
        raise ValueError('plot_histograms: got no tensors to draw.')
    layers = list(dict.fromkeys(tensor.layer for tensor in tensors))
    figure = Figure(figsize=(10, 2.4 * len(layers)))
    panels = figure.subplots(len(layers), 2, squeeze=False)
    # No layout engine: it measures every label of every panel, for longer than drawing takes.
    figure.subplots_adjust(
        left=0.07, right=0.98, bottom=0.2 / len(layers), top=1 - 0.12 / len(layers), hspace=0.62)
    for row, layer in zip(panels, layers):
        of_layer = {tensor.part: tensor for tensor in tensors if tensor.layer == layer}
        for panel, part in zip(row, _PARTS.values()):
            if part in of_layer:
                _draw_histogram(panel, of_layer[part])
            else:
                panel.set_axis_off()
    return figure


def _draw_histogram(panel: Axes, tensor: QuantizedTensor) -> None:
    """Number of samples on a logarithmic scale, since many values are near zero."""
    panel.stairs(*np.histogram(tensor.values.numpy(), bins=_BINS), fill=True, color=_VALUES_COLOUR)
    panel.set_yscale('log', nonpositive='clip', subs=[])
    panel.vlines(
        tensor.grid_points.numpy(),
        0,
        1,
        color=_GRID_COLOUR,
        linewidth=min(1.2, 40 / len(tensor.grid_points)),
        alpha=0.9,
        transform=panel.get_xaxis_transform())
    panel.set_title(
        f'{tensor.layer}, {tensor.part}: {tensor.bits} bits, {tensor.sqnr:.1f} dB', fontsize=9)
    panel.set_xlabel('steps of each channel or level' if tensor.in_steps else 'value', fontsize=8)
    panel.set_ylabel('samples', fontsize=8)


def _adding_input(collector: _Collector) -> Callable[[nn.Module, tuple], None]:

    def hook(_: nn.Module, inputs: tuple) -> None:
        collector.add(inputs[0])

    return hook


def _samples(values: Tensor) -> Tensor:
    # An odd step, so that not one column of a map is sampled.
    step = values.numel() // _SAMPLES_PER_CALL | 1
    return values.flatten()[::step].float()
