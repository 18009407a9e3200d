"""Reads the learned intervals of a training run and plots where they started and ended."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from mmaqd.checkpoints import read_checkpoint
from mmaqd.quantizers import state_interval

from .switching import stage_of

_PARTS = (('weight_quantizer', 'weights'), ('input_quantizer', 'inputs'))
_QUANTIZER = re.compile(r'(.+)\.(weight_quantizer|input_quantizer)(?:\.(\d+))?')
_LOG_PREFIX = 'interval/'


def checkpoint_intervals(checkpoint: str | Path) -> dict[str, float]:
    """Intervals in a checkpoint of a low-bit model.

    Args:
        checkpoint: File that MMEngine wrote.

    Returns:
        Interval by the quantizer's name, ``<layer>.weight_quantizer`` or
        ``<layer>.input_quantizer``, with the level behind it for one of several levels; the mean
        where a quantizer has an interval for each channel.

    Raises:
        ValueError: If the checkpoint holds no interval.
    """
    checkpoint_state = read_checkpoint(str(checkpoint), map_location='cpu')
    state = checkpoint_state.get('state_dict', checkpoint_state)
    owners = dict.fromkeys(key.rpartition('.')[0] for key in state)
    found = {name: _interval(name, state) for name in owners if _QUANTIZER.fullmatch(name)}
    intervals = {
        name: float(value.double().mean())
        for name, value in found.items() if value is not None
    }
    if not intervals:
        raise ValueError(f'{checkpoint} holds no intervals, so it is no checkpoint of a low-bit '
                         'model, or of one whose quantizers learn nothing.')
    return intervals


def logged_intervals(work_dir: str | Path) -> dict[int, dict[str, float]]:
    """Intervals that ``mmaqd.LogIntervalsHook`` logged, over all runs in a work dir.

    Where a run was resumed, iterations that were trained again keep the later record.

    Args:
        work_dir: Work dir of the training.

    Returns:
        By iteration, ascending, the interval by quantizer name.

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
        start: Interval by quantizer name, positive.
        end: The same quantizers later.

    Returns:
        To be saved by its ``savefig``.

    Raises:
        ValueError: If ``start`` and ``end`` do not have the same quantizers.
    """
    if set(start) != set(end):
        raise ValueError('plot_intervals: start and end have different quantizers: '
                         f'{sorted(set(start) ^ set(end))}.')
    layers = list(dict.fromkeys(_label(name) for name in end))
    figure = Figure(figsize=(max(6.0, 0.3 * len(layers)), 7.5), layout='tight')
    panels = figure.subplots(2, 1, sharex=True)
    for panel, (part, title) in zip(panels, _PARTS):
        _draw_panel(panel, layers, part, start, end)
        panel.set_title(f'intervals of the {title}')
    panels[0].legend()
    panels[-1].set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    return figure


def plot_interval_history(history: Mapping[int, Mapping[str, float]]) -> Figure:
    """Draw the intervals over the iterations of a training, a line for each quantizer.

    The upper panels show the weight quantizers, the lower ones the input quantizers; the left ones
    the intervals, the right ones how they changed since their first record. The layers of a stage
    (see :func:`mmaqd.analysis.stage_of`) share a colour.

    Args:
        history: Interval by quantizer name, positive, by
            iteration, as :func:`logged_intervals` gives it.

    Returns:
        To be saved by its ``savefig``.
    """
    names = list(dict.fromkeys(name for record in history.values() for name in record))
    stage = {name: stage_of(_split(name)[0]) for name in names}
    stages = list(dict.fromkeys(stage.values()))
    colours = {each: colormaps['tab20'](place % 20) for place, each in enumerate(stages)}
    figure = Figure(figsize=(11, 7.5), layout='constrained')
    for panels, (part, title) in zip(figure.subplots(2, 2, sharex=True), _PARTS):
        for name in names:
            if _split(name)[1] == part:
                steps, values = zip(*((step, record[name]) for step, record in history.items()
                                      if name in record))
                change = [100 * (value / values[0] - 1) for value in values]
                for panel, shown in zip(panels, (values, change)):
                    panel.plot(steps, shown, color=colours[stage[name]], marker='.')
        panels[0].set(title=f'intervals of the {title}', yscale='log', xlabel='iteration')
        panels[1].set(title='change since the first record (%)', xlabel='iteration')
        for panel in panels:
            panel.grid(alpha=0.3)
    figure.legend([Line2D([], [], color=colour) for colour in colours.values()],
                  stages,
                  loc='outside right upper',
                  fontsize=8)
    return figure


def _interval(name: str, state: Mapping[str, Tensor]) -> Tensor | None:
    """Interval of the quantizer of that name in the state of a model."""
    own = {key[len(name) + 1:]: value for key, value in state.items() if key.startswith(f'{name}.')}
    return state_interval(own, is_weight=_split(name)[1] == 'weight_quantizer')


def _split(name: str) -> tuple[str, str, str | None]:
    """Layer, part and, if it has one, the level of a quantizer; no part for a foreign name."""
    match = _QUANTIZER.fullmatch(name)
    return match.groups() if match else (name, '', None)


def _label(name: str) -> str:
    """What the axis calls the layer of a quantizer, each level by itself."""
    layer, _, level = _split(name)
    return layer if level is None else f'{layer}[{level}]'


def _draw_panel(panel: Axes, layers: Sequence[str], part: str, start: Mapping[str, float],
                end: Mapping[str, float]) -> None:
    """Two bars for each layer that has a quantizer of this part."""
    shown = [name for name in end if _split(name)[1] == part]
    places = [layers.index(_label(name)) for name in shown]
    for shift, values, colour, label in ((-0.2, start, 'tab:gray', 'start'), (0.2, end, 'tab:blue',
                                                                              'end')):
        panel.bar([place + shift for place in places], [values[name] for name in shown],
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
