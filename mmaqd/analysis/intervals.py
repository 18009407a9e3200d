"""Reads the learned intervals of a training run and plots where they started and ended."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmaqd.compat import load_from_local

_PARTS = (('weight_quantizer', 'weights'), ('input_quantizer', 'inputs'))
_LOG_PREFIX = 'interval/'
_STATE_SUFFIX = '.interval'


def checkpoint_intervals(checkpoint: str | Path) -> dict[str, float]:
    """Intervals in a checkpoint of a low-bit model.

    Args:
        checkpoint (str | Path): File that MMEngine wrote.

    Returns:
        dict[str, float]: Interval by the quantizer's name, ``<layer>.weight_quantizer`` or
        ``<layer>.input_quantizer``; the mean where a quantizer has several.

    Raises:
        ValueError: If the checkpoint holds no interval.
    """
    state = load_from_local(str(checkpoint), map_location='cpu')
    suffixes = tuple(part + _STATE_SUFFIX for part, _ in _PARTS)
    intervals = {
        name[:-len(_STATE_SUFFIX)]: float(value.double().mean())
        for name, value in state.get('state_dict', state).items() if name.endswith(suffixes)
    }
    if not intervals:
        raise ValueError(f'{checkpoint} holds no intervals, so it is no checkpoint of a low-bit '
                         'model.')
    return intervals


def logged_intervals(work_dir: str | Path) -> dict[int, dict[str, float]]:
    """Intervals that ``mmaqd.LogIntervalsHook`` logged, over all runs in a work dir.

    Where a run was resumed, iterations that were trained again keep the later record.

    Args:
        work_dir (str | Path): Work dir of the training.

    Returns:
        dict[int, dict[str, float]]: By iteration, ascending, the interval by quantizer name.

    Raises:
        FileNotFoundError: If no interval was logged below ``work_dir``.
    """
    history: dict[int, dict[str, float]] = {}
    # The folders are named by the time of the run, so their order is the order of the runs.
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = _parse(line)
            found = {
                name[len(_LOG_PREFIX):]: value
                for name, value in record.items() if name.startswith(_LOG_PREFIX)
            }
            if found:
                history[record['step']] = found
    if not history:
        raise FileNotFoundError(f'No intervals were logged below {work_dir}. Add the hook '
                                "dict(type='mmaqd.LogIntervalsHook') to the config.")
    return dict(sorted(history.items()))


def plot_intervals(start: Mapping[str, float], end: Mapping[str, float]) -> Figure:
    """Draw the intervals at the start and at the end of a training, layer by layer.

    One panel shows the weight quantizers, one the input quantizers.

    Args:
        start (Mapping[str, float]): Interval by quantizer name, positive.
        end (Mapping[str, float]): The same quantizers later.

    Returns:
        Figure: To be saved by its ``savefig``.

    Raises:
        ValueError: If ``start`` and ``end`` do not have the same quantizers.
    """
    if set(start) != set(end):
        raise ValueError('plot_intervals: start and end have different quantizers: '
                         f'{sorted(set(start) ^ set(end))}.')
    layers = list(dict.fromkeys(name.rsplit('.', 1)[0] for name in end))
    figure = Figure(figsize=(max(6.0, 0.3 * len(layers)), 7.5), layout='tight')
    panels = figure.subplots(2, 1, sharex=True)
    for panel, (part, title) in zip(panels, _PARTS):
        _draw_panel(panel, layers, part, start, end)
        panel.set_title(f'intervals of the {title}')
    panels[0].legend()
    panels[-1].set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    return figure


def _draw_panel(panel: Axes, layers: Sequence[str], part: str, start: Mapping[str, float],
                end: Mapping[str, float]) -> None:
    """Two bars for each layer that has a quantizer of this part."""
    shown = [(place, f'{layer}.{part}') for place, layer in enumerate(layers)
             if f'{layer}.{part}' in end]
    places = [place for place, _ in shown]
    for shift, values, colour, label in ((-0.2, start, 'tab:gray', 'start'), (0.2, end, 'tab:blue',
                                                                              'end')):
        panel.bar([place + shift for place in places], [values[name] for _, name in shown],
                  width=0.4,
                  color=colour,
                  label=label)
    panel.set_ylabel('interval')
    panel.grid(axis='y', alpha=0.3)


def _parse(line: str) -> dict:
    """A record of the log; none when a kill cut the line short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}
