"""Plots of the study: every seed a dot, their mean a line or a bar."""
from __future__ import annotations

from collections import Counter
from statistics import fmean
from textwrap import fill
from typing import Any, Callable, Mapping, Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study_rows import FLOAT_BITS, Row

#: Gives the AP of a row in percent, by seed, out of the results.
Values = Callable[[Any, str], Mapping[int, float]]
_LABEL_WIDTH = 50  # characters; longer labels would leave the dots no room


def plot_bits(rows: Sequence[Row], results: Any, values: Values) -> Optional[Figure]:
    """AP against bits, a panel for each detector and head, a line for each method and note.

    The dashed line is the float row that the low-bit rows of the panel are compared with.

    Args:
        rows: Low-bit rows, and any others, which are left out.
        results: What ``values`` takes.
        values: Gives the AP by seed for the name of a row.

    Returns:
        The figure, None if no low-bit row has a result.
    """
    found = [row for row in rows if row.bits < FLOAT_BITS and values(results, row.name)]
    panels = list(dict.fromkeys((row.detector, row.norm) for row in found))
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels), 4), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (detector, norm) in zip(all_axes, panels):
        members = [row for row in found if (row.detector, row.norm) == (detector, norm)]
        lines = list(dict.fromkeys(row.label for row in members))
        for index, name in enumerate(lines):
            own = sorted((row for row in members if row.label == name), key=lambda row: row.bits)
            # Side by side, so that the dots of different methods do not cover each other.
            shift = 0.08 * (index - (len(lines) - 1) / 2)
            _draw_line(axes, own, [values(results, row.name) for row in own], shift)
        _draw_float(axes.axhline, values(results, members[0].twin) if members[0].twin else {})
        axes.set(title=f'{detector}, {norm}', xlabel='bits of weights and activations')
        axes.set_xticks(sorted({row.bits for row in members}))
        axes.legend()
    all_axes[0].set_ylabel('AP')
    return figure


def plot_rows(rows: Sequence[Row], results: Any, values: Values) -> Optional[Figure]:
    """AP of each row, one below the other, by bits; arguments and result as in :func:`plot_bits`.

    The dashed line is the float row that most of them are compared with.
    """
    found = sorted((row for row in rows if values(results, row.name)), key=lambda row: -row.bits)
    if not found:
        return None
    figure = Figure(figsize=(9, 1 + 0.4 * len(found)), layout='constrained')
    axes = figure.subplots()
    for height, row in enumerate(reversed(found)):
        aps = list(values(results, row.name).values())
        axes.plot(aps, [height] * len(aps), 'o', color='C0', alpha=0.6)
        axes.plot(fmean(aps), height, '|', color='black', markersize=16)
    axes.set_yticks(range(len(found)), [_label(row) for row in reversed(found)])
    for name, _ in Counter(row.twin for row in found if row.twin).most_common(1):
        _draw_float(axes.axvline, values(results, name))
    axes.set_xlabel('AP (dots: seeds, bar: their mean, dashed: float)')
    axes.grid(axis='x', alpha=0.3)
    return figure


#: The plot of a group, by its name.
PLOTS = dict(
    main=plot_bits,
    large_batches=plot_bits,
    norms=plot_rows,
    methods=plot_bits,
    changes=plot_rows,
    post_training=plot_bits,
    mended=plot_rows)


def _draw_line(axes: Axes, rows: Sequence[Row], aps: Sequence[Mapping[int, float]],
               shift: float) -> None:
    places = [row.bits + shift for row in rows]
    line, = axes.plot(places, [fmean(each.values()) for each in aps], label=rows[0].label)
    for place, each in zip(places, aps):
        axes.plot([place] * len(each), list(each.values()), 'o', color=line.get_color(), alpha=0.6)


def _draw_float(draw: Callable[..., Any], aps: Mapping[int, float]) -> None:
    if aps:
        draw(fmean(aps.values()), linestyle='--', color='black', label='float')


def _label(row: Row) -> str:
    if row.bits == FLOAT_BITS:
        return f'float, {row.norm}, {row.note}'
    text = f'{row.bits} bits, ' + (row.note or f'{row.method}, {row.norm}')
    return fill(text, _LABEL_WIDTH)
