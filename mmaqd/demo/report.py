"""The table of the demo: accuracy, bits and size of its models, as Markdown and as JSON."""
from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmaqd.analysis import bit_operations, count_macs, packed_weight_bytes
from mmaqd.conversion import LayerQuantization, quantization_table
from mmaqd.registry import MODELS

_FLOAT_BITS = 32
# The first conv takes the 8-bit image as it is, so its input has no quantizer.
_IMAGE_CONV, _IMAGE_BITS = 'backbone.conv1', 8
_HEADER = ('model', 'AP', 'AP50', 'bits of weights', 'bits of inputs', 'weights (MB)',
           'bit operations (10^9)')


@dataclass(frozen=True)
class ReportRow:
    """One model of the table.

    Args:
        model (str): Its name in the table.
        ap (float): Box AP over IoU 0.5 to 0.95, in percent.
        ap50 (float): Box AP at IoU 0.5, in percent.
        weight_bits (str): Bits of the weights of most convs, then the exceptions.
        input_bits (str): Bits of their inputs, likewise.
        weight_megabytes (float): Weights of all convs, packed, in 10^6 bytes.
        giga_bit_operations (float): MACs x weight bits x input bits for one image, in 10^9.
    """

    model: str
    ap: float
    ap50: float
    weight_bits: str
    input_bits: str
    weight_megabytes: float
    giga_bit_operations: float


def report_row(model: str, config: str | Path, metrics: dict[str, float],
               image_size: int) -> ReportRow:
    """Describe a model by its config and its metrics.

    Args:
        model (str): Name in the table.
        config (str | Path): Its config.
        metrics (dict[str, float]): What CocoMetric returned, AP in [0, 1].
        image_size (int): Side of the square image that the bit operations are for, in pixels.

    Returns:
        ReportRow: The row of the table.
    """
    cfg = Config.fromfile(config)
    rows = quantization_table(_build(cfg))
    # Counted on the float twin, whose layers have the same names: it needs no intervals.
    macs = count_macs(_build(_float_twin(cfg)), torch.zeros(1, 3, image_size, image_size))
    image_bits = _image_bits(rows)
    inputs = [image_bits.get(row.module, row.input_bits) for row in rows]
    return ReportRow(
        model=model,
        ap=round(100 * metrics['coco/bbox_mAP'], 1),
        ap50=round(100 * metrics['coco/bbox_mAP_50'], 1),
        weight_bits=_summary([row.weight_bits for row in rows]),
        input_bits=_summary(inputs),
        weight_megabytes=round(packed_weight_bytes(rows) / 1e6, 2),
        giga_bit_operations=round(bit_operations(rows, macs, image_bits) / 1e9, 1))


def write_report(rows: Sequence[ReportRow], folder: str | Path) -> str:
    """Write the table as ``results.md`` and ``results.json``.

    Args:
        rows (Sequence[ReportRow]): The models, in the order of the table.
        folder (str | Path): Existing folder for the two files.

    Returns:
        str: The table as Markdown.
    """
    lines = [[str(value) for value in asdict(row).values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEADER, *lines)]
    text = [_markdown(_HEADER, widths), _markdown(['-' * width for width in widths], widths)]
    table = '\n'.join(text + [_markdown(line, widths) for line in lines]) + '\n'
    Path(folder, 'results.md').write_text(table)
    Path(folder, 'results.json').write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return table


def _build(cfg: Config) -> nn.Module:
    init_default_scope('mmdet')
    return MODELS.build(cfg.model).eval()


def _float_twin(cfg: Config) -> Config:
    """The config with the detector as it is before it is quantized."""
    twin = cfg.copy()
    model = twin.model.to_dict()
    if model.pop('quantization', None) is not None:
        model['type'] = model.pop('detector')
    twin.model = model
    return twin


def _image_bits(rows: Sequence[LayerQuantization]) -> dict[str, int]:
    """Bits of the image for the first conv, if its weights are quantized."""
    return {
        row.module: _IMAGE_BITS
        for row in rows if row.module == _IMAGE_CONV and row.weight_bits < _FLOAT_BITS
    }


def _summary(bits: Sequence[int]) -> str:
    """The most frequent number, then how many convs have another one: ``'4, 8 in 3 convs'``."""
    (usual, _), *others = Counter(bits).most_common()
    return ', '.join([str(usual), *(f'{other} in {count} convs' for other, count in others)])


def _markdown(cells: Sequence[str], widths: Sequence[int]) -> str:
    return '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(cells, widths)) + ' |'
