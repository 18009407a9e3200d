"""The table of the demo: accuracy, bits and size of its models, as Markdown and as JSON."""
from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Sequence

from mmaqd.analysis import (bit_operations, build_detector, detector_macs, packed_weight_bytes,
                            with_float_work)
from mmaqd.conversion import quantization_table

_HEADER = ('model', 'AP', 'AP50', 'bits of weights', 'bits of inputs', 'weights (MB)',
           'bit operations (10^9)', 'file (MB)', 'latency (ms)')


@dataclass(frozen=True)
class ReportRow:
    """One model of the table.

    Args:
        model: Its name in the table.
        ap: Box AP over IoU 0.5 to 0.95, in percent.
        ap50: Box AP at IoU 0.5, in percent.
        weight_bits: Bits of the weights of most convs, then the exceptions.
        input_bits: Bits of their inputs, likewise.
        weight_megabytes: Weights of all convs, packed, in 10^6 bytes.
        giga_bit_operations: MACs x weight bits x input bits for one image, in 10^9.
        file_megabytes: Its exported file, in 10^6 bytes; None if it has none.
        latency_milliseconds: One image through that file, likewise.
    """

    model: str
    ap: float
    ap50: float
    weight_bits: str
    input_bits: str
    weight_megabytes: float
    giga_bit_operations: float
    file_megabytes: float | None = None
    latency_milliseconds: float | None = None


def report_row(model: str, config: str | Path, metrics: dict[str, float],
               image_size: int) -> ReportRow:
    """Describe a model by its config and its metrics.

    Args:
        model: Name in the table.
        config: Its config.
        metrics: What CocoMetric returned, AP in [0, 1].
        image_size: Side of the square image that the bit operations are for, in pixels.

    Returns:
        The row of the table.
    """
    _, detector = build_detector(config)
    rows = quantization_table(detector)
    macs = detector_macs(detector, image_size, image_size)
    return ReportRow(
        model=model,
        ap=round(100 * metrics['coco/bbox_mAP'], 1),
        ap50=round(100 * metrics['coco/bbox_mAP_50'], 1),
        weight_bits=_summary([row.weight_bits for row in rows]),
        input_bits=_summary([row.input_bits for row in rows]),
        weight_megabytes=round(packed_weight_bytes(rows) / 1e6, 2),
        giga_bit_operations=round(bit_operations(with_float_work(rows, macs), macs) / 1e9, 1))


def with_file(row: ReportRow, file: Path | None, milliseconds: float | None) -> ReportRow:
    """The row with the size of an exported file and its latency, if there is one."""
    if file is None or milliseconds is None:
        return row
    size = round(file.stat().st_size / 1e6, 2)
    return replace(row, file_megabytes=size, latency_milliseconds=round(milliseconds, 1))


def write_report(rows: Sequence[ReportRow], folder: str | Path) -> str:
    """Write the table as ``results.md`` and ``results.json``.

    Args:
        rows: The models, in the order of the table.
        folder: Existing folder for the two files.

    Returns:
        The table as Markdown.
    """
    lines = [['' if value is None else str(value) for value in asdict(row).values()]
             for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEADER, *lines)]
    text = [_markdown(_HEADER, widths), _markdown(['-' * width for width in widths], widths)]
    table = '\n'.join(text + [_markdown(line, widths) for line in lines]) + '\n'
    Path(folder, 'results.md').write_text(table)
    Path(folder, 'results.json').write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return table


def _summary(bits: Sequence[int]) -> str:
    """The most frequent number, then how many convs have another one: ``'4, 8 in 3 convs'``."""
    (usual, _), *others = Counter(bits).most_common()
    return ', '.join([str(usual), *(f'{other} in {count} convs' for other, count in others)])


def _markdown(cells: Sequence[str], widths: Sequence[int]) -> str:
    return '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(cells, widths)) + ' |'
