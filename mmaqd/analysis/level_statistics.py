"""Compares the statistics of each pyramid level with those that the head's BN normalizes by.

The convs of a dense head are shared over the levels, whose features differ. A BN that is shared too
has one running mean and variance for all of them, and fits none (arXiv:2007.06919).
"""
from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Iterable, Iterator, Sequence

import torch
import torch.nn as nn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.layers import MultiLevelBN
from mmaqd.quantizers import modes_kept

_Norm = MultiLevelBN | _BatchNorm
# Prefix of the attribute: shift of the box, its colour and its name in the legend.
_SERIES = {
    '': (-0.17, 'tab:blue', 'data'),
    'running_': (0.17, 'tab:orange', 'running statistics of the norm')
}
_NO_BN = ('Statistics per level are compared with the running statistics of a BN. Build the head '
          "with norm_cfg=dict(type='BN') or dict(type='mmaqd.MultiLevelBN', num_levels=...).")


@dataclass(frozen=True)
class LevelStatistics:
    """Features that reach a norm of the head at one pyramid level, and what they are normalized by.

    Attributes:
        layer: Name of the norm in the model.
        level: Pyramid level, 0 for the finest.
        norm: Class of the norm, ``'BatchNorm2d'`` or ``'MultiLevelBN'`` for example.
        mean: (C,), of the features over the data.
        variance: (C,), of the features over the data.
        running_mean: (C,), of the norm.
        running_variance: (C,), of the norm.
        eps: What the norm adds to a variance.
    """

    layer: str
    level: int
    norm: str
    mean: Tensor
    variance: Tensor
    running_mean: Tensor
    running_variance: Tensor
    eps: float

    @property
    def mean_shift(self) -> float:
        """|mean - running mean| / running std, averaged over the channels; 0 where they agree."""
        running_std = (self.running_variance + self.eps).sqrt()
        return float(((self.mean - self.running_mean).abs() / running_std).mean())

    @property
    def log_variance_ratio(self) -> float:
        """|ln(variance / running variance)|, averaged over the channels; 0 where they agree."""
        ratio = (self.variance + self.eps) / (self.running_variance + self.eps)
        return float(ratio.log().abs().mean())


class _Moments:
    """Sums of what passes through a norm, for each pyramid level."""

    def __init__(self) -> None:
        self.levels: list[list[Tensor]] = []
        self._next_level = 0

    def add(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of the norm; the levels come one after the other."""
        values = inputs[0].detach().double()
        dims = [dim for dim in range(values.dim()) if dim != 1]
        sums = [
            values.new_tensor(values[:, 0].numel()),
            values.sum(dims),
            values.square().sum(dims)
        ]
        if self._next_level == len(self.levels):
            self.levels.append(sums)
        else:
            for total, more in zip(self.levels[self._next_level], sums):
                total.add_(more)
        self._next_level += 1

    def next_batch(self) -> int:
        """Start over with the first level; gives the number of levels that the batch had."""
        seen, self._next_level = self._next_level, 0
        return seen

    def mean_and_variance(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each level over everything seen."""
        for count, total, squares in self.levels:
            mean = total / count
            yield mean, (squares / count - mean.square()).clamp_min(0)


@torch.no_grad()
def level_statistics(model: nn.Module, batches: Iterable[Any]) -> list[LevelStatistics]:
    """Measure the features in front of every BN of the head, level by level.

    The model runs as in evaluation, so each layer sees what the layers before it really make.

    Args:
        model: A detector with a dense head ``bbox_head`` whose norms are BN, shared
            or multi-level, float or quantized.
        batches: What its data preprocessor takes, at least one.

    Returns:
        By layer, then level.

    Raises:
        ValueError: The head has no BN, there are no batches, or a norm does not run once for each
            level.
    """
    norms = _head_norms(model)
    moments = {name: _Moments() for name in norms}
    with ExitStack() as stack:
        stack.enter_context(modes_kept(model))
        model.eval()
        for name, norm in norms.items():
            handle = norm.register_forward_pre_hook(moments[name].add)
            stack.callback(handle.remove)
        for batch in batches:
            feats = model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
            model.bbox_head(feats)
            for name in norms:
                _check_calls(name, moments[name].next_batch(), len(feats))
    statistics = [row for name in norms for row in _of_layer(name, norms[name], moments[name])]
    if not statistics:
        raise ValueError('level_statistics: there are no batches to take statistics from.')
    return statistics


def with_shared_norm(statistics: Sequence[LevelStatistics]) -> list[LevelStatistics]:
    """The same features against one running mean and variance for all levels of a layer.

    These are the averages of the running statistics over the levels: a shared BN is called once a
    level and moves by the same momentum each time. For a shared BN nothing changes.

    Args:
        statistics: From :func:`level_statistics`.

    Returns:
        In the same order.
    """
    shared = []
    for _, group in groupby(statistics, key=lambda row: row.layer):
        rows = list(group)
        mean = torch.stack([row.running_mean for row in rows]).mean(dim=0)
        variance = torch.stack([row.running_variance for row in rows]).mean(dim=0)
        shared += [replace(row, running_mean=mean, running_variance=variance) for row in rows]
    return shared


def level_table(statistics: Sequence[LevelStatistics]) -> list[dict[str, Any]]:
    """Figures for each layer and level, and for each layer their mean over the levels.

    ``mean`` and ``variance`` (of the data and of the norm) are averages over the channels.
    ``mean shift`` and ``log variance ratio`` are the properties of :class:`LevelStatistics`; after
    ``shared:`` those against one norm for all levels, see :func:`with_shared_norm`.

    Args:
        statistics: From :func:`level_statistics`.

    Returns:
        Rows for :func:`mmaqd.analysis.format_rows`; the row with the level
        ``'all'`` ends each layer.
    """
    pairs = list(zip(statistics, with_shared_norm(statistics)))
    table = []
    for _, group in groupby(pairs, key=lambda pair: pair[0].layer):
        rows = [_level_row(own, shared) for own, shared in group]
        figures = [key for key, value in rows[0].items() if isinstance(value, float)]
        means = {key: sum(row[key] for row in rows) / len(rows) for key in figures}
        table += [*rows, {**rows[0], 'level': 'all', **means}]
    return table


def plot_level_statistics(statistics: Sequence[LevelStatistics]) -> Figure:
    """Draw, layer by layer, the statistics of each level beside those that it is normalized by.

    Both are drawn relative to one running mean m and variance s^2 for all levels (see
    :func:`with_shared_norm`; those of the norm itself if it is shared): (mean - m)/s on the left,
    variance/s^2 on the right. A box shows the channels: median, middle half, 5% to 95%. The boxes
    of the data move away from the line where one norm does not fit a level.

    Args:
        statistics: From :func:`level_statistics`.

    Returns:
        To be saved by its ``savefig``.
    """
    layers = [list(group) for _, group in groupby(statistics, key=lambda row: row.layer)]
    figure = Figure(figsize=(10, 0.7 + 2 * len(layers)), layout='constrained')
    for panels, rows in zip(figure.subplots(len(layers), 2, squeeze=False), layers):
        shared = with_shared_norm(rows)
        places = [row.level for row in rows]
        for panel, quantity in zip(panels, ('mean', 'variance')):
            for prefix, (shift, colour, label) in _SERIES.items():
                values = [
                    _relative(getattr(row, prefix + quantity), one, quantity)
                    for row, one in zip(rows, shared)
                ]
                _draw_boxes(panel, values, [place + shift for place in places], colour, label)
            panel.set_xticks(places, [f'level {place}' for place in places])
            panel.grid(axis='y', alpha=0.3)
        _describe(panels, rows, shared)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=3, frameon=False)
    return figure


def _head_norms(model: nn.Module) -> dict[str, _Norm]:
    """The BNs of the head by name, a multi-level one as a whole."""
    norms: dict[str, _Norm] = {}
    others = set()
    for name, module in model.bbox_head.named_modules(prefix='bbox_head'):
        if name.rpartition('.')[0] in norms:
            continue  # a level of a MultiLevelBN
        if isinstance(module, (MultiLevelBN, _BatchNorm)):
            norms[name] = module
        elif 'Norm' in type(module).__name__:
            others.add(type(module).__name__)
    if not norms:
        found = f'only {", ".join(sorted(others))}' if others else 'no norm at all'
        raise ValueError(f'bbox_head ({type(model.bbox_head).__name__}) has no BN: it has {found}. '
                         f'{_NO_BN}')
    return norms


def _check_calls(name: str, calls: int, num_levels: int) -> None:
    if calls != num_levels:
        raise ValueError(
            f'{name} ran {calls} times for {num_levels} pyramid levels, so its inputs '
            'can\'t be told apart by level; a norm of a shared head runs once a level.')


def _of_layer(name: str, norm: _Norm, moments: _Moments) -> Iterator[LevelStatistics]:
    for level, (mean, variance) in enumerate(moments.mean_and_variance()):
        used = norm[level] if isinstance(norm, MultiLevelBN) else norm
        yield LevelStatistics(
            layer=name,
            level=level,
            norm=type(norm).__name__,
            mean=mean.cpu(),
            variance=variance.cpu(),
            running_mean=used.running_mean.double().cpu(),
            running_variance=used.running_var.double().cpu(),
            eps=used.eps)


def _level_row(own: LevelStatistics, shared: LevelStatistics) -> dict[str, Any]:
    return {
        'layer': own.layer,
        'norm': own.norm,
        'level': str(own.level),
        'mean': float(own.mean.mean()),
        'running mean': float(own.running_mean.mean()),
        'variance': float(own.variance.mean()),
        'running variance': float(own.running_variance.mean()),
        'mean shift': own.mean_shift,
        'log variance ratio': own.log_variance_ratio,
        'shared: mean shift': shared.mean_shift,
        'shared: log variance ratio': shared.log_variance_ratio,
    }


def _relative(values: Tensor, shared: LevelStatistics, quantity: str) -> Tensor:
    """Means or variances relative to a norm."""
    variance = shared.running_variance + shared.eps
    if quantity == 'mean':
        return (values - shared.running_mean) / variance.sqrt()
    return (values + shared.eps) / variance


def _draw_boxes(panel: Axes, values: Sequence[Tensor], places: Sequence[float], colour: str,
                label: str) -> None:
    """A box for each level."""
    boxes = panel.boxplot([each.numpy() for each in values],
                          positions=places,
                          widths=0.3,
                          whis=(5, 95),
                          showfliers=False,
                          patch_artist=True,
                          manage_ticks=False,
                          medianprops=dict(color='black'))['boxes']
    for box in boxes:
        box.set(facecolor=colour, edgecolor=colour, linewidth=3)  # seen where it is a mere line
    boxes[0].set_label(label)


def _describe(panels: Sequence[Axes], rows: Sequence[LevelStatistics],
              shared: Sequence[LevelStatistics]) -> None:
    """Titles with the figures of a layer, and the line of one norm for all levels."""
    for panel, key, title, line in ((panels[0], 'mean_shift', 'mean shift', 0),
                                    (panels[1], 'log_variance_ratio', 'log variance ratio', 1)):
        own, one = (sum(getattr(row, key) for row in each) / len(rows) for each in (rows, shared))
        panel.axhline(line, color='tab:gray', zorder=0, label='one norm for all levels')
        panel.set_title(f'{rows[0].layer}: {title} {own:.2f}, one norm {one:.2f}', fontsize=8)
    panels[0].set_ylabel('(mean - m) / s')
    panels[1].set_ylabel('variance / s$^2$')
    panels[1].set_yscale('log', base=2)
    panels[1].yaxis.set_major_formatter('{x:g}')
    panels[1].yaxis.set_minor_formatter('')
