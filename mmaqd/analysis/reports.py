"""One call for each report: loads a model and its data, measures, writes tables and pictures."""
from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch.nn as nn
from matplotlib.figure import Figure
from mmengine.config import Config

from mmaqd.models.quantization_table import LayerQuantization

from .distributions import noise_table, plot_histograms, plot_noise, quantized_tensors
from .intervals import logged_intervals, plot_interval_history
from .level_statistics import level_statistics, level_table, plot_level_statistics
from .loading import initialize_intervals, is_float_checkpoint, iterate_batches, load_detector
from .macs import detector_macs
from .sensitivity import (Score, detection_score, mean_loss, plot_sensitivity, reestimated_norms,
                          sensitivity, sensitivity_table)
from .size import image_size, layer_sizes, size_summary, size_table, with_float_work
from .switching import group_layers, quantized_layers
from .tables import Row, format_rows, write_rows

_PathLike = str | Path
_DPI = 90


def report_level_statistics(config: _PathLike,
                            checkpoint: _PathLike,
                            out: _PathLike | None = None,
                            layers: str = '*',
                            split: str = 'train',
                            num_batches: int | None = 16,
                            cfg_options: dict | None = None,
                            device: str | None = None) -> list[Path]:
    """Compare the head's features with the statistics of its BN, level by level.

    Args:
        config: Config of a detector.
        checkpoint: Its checkpoint.
        out: Folder for the files; ``analysis`` in the config's work dir by
            default.
        layers: Shell pattern over the names of the norms to draw; the table has all.
        split: ``'train'``, ``'val'`` or ``'test'``.
        num_batches: Batches to look at, None for all.
        cfg_options: Dotted keys of the config and their new values.
        device: By default a GPU if there is one.

    Returns:
        The files.

    Raises:
        ValueError: The head has no BN, or ``layers`` matches none.
    """
    cfg, model = load_detector(config, checkpoint, cfg_options, device)
    initialize_intervals(cfg, model)
    statistics = level_statistics(model, iterate_batches(cfg, split, num_batches))
    shown = _matching(statistics, layers)
    return _write(
        _folder(cfg, out), 'level_statistics', level_table(statistics),
        dict(level_statistics=plot_level_statistics(shown)))


def report_intervals(work_dir: _PathLike, out: _PathLike | None = None) -> list[Path]:
    """Draw the intervals over a training and list them.

    Args:
        work_dir: Work dir of a training with ``mmaqd.LogIntervalsHook``.
        out: Folder for the files; ``analysis`` in ``work_dir`` by default.

    Returns:
        The files.

    Raises:
        FileNotFoundError: No interval was logged.
    """
    history = logged_intervals(work_dir)
    rows = [{'iteration': step, **record} for step, record in history.items()]
    return _write(
        Path(out or Path(work_dir, 'analysis')),
        'intervals',
        rows,
        dict(intervals=plot_interval_history(history)),
        show=False)


def report_quantization_noise(config: _PathLike,
                              checkpoint: _PathLike,
                              out: _PathLike | None = None,
                              layers: str = '*',
                              split: str = 'train',
                              num_batches: int | None = 2,
                              cfg_options: dict | None = None,
                              device: str | None = None) -> list[Path]:
    """Signal to quantization noise ratio of every layer, and histograms with the grid points.

    Args:
        config: Config of a low-bit detector.
        checkpoint: Its checkpoint, or that of its float twin.
        out: As for :func:`report_level_statistics`.
        layers: Shell pattern over the names of the layers whose histograms are drawn.
        split: ``'train'``, ``'val'`` or ``'test'``.
        num_batches: Batches to look at, None for all.
        cfg_options: Dotted keys of the config and their new values.
        device: By default a GPU if there is one.

    Returns:
        The files.

    Raises:
        ValueError: The model has no quantized layer, or ``layers`` matches none.
    """
    cfg, model = load_detector(config, checkpoint, cfg_options, device)
    initialize_intervals(cfg, model)
    tensors = quantized_tensors(model, iterate_batches(cfg, split, num_batches))
    shown = _matching(tensors, layers)
    return _write(
        _folder(cfg, out), 'quantization_noise', noise_table(tensors),
        dict(quantization_noise=plot_noise(tensors), histograms=plot_histograms(shown)))


def report_sensitivity(config: _PathLike,
                       checkpoint: _PathLike,
                       out: _PathLike | None = None,
                       by: str = 'stage',
                       groups: Sequence[str] = (),
                       metric: str | None = None,
                       all_but_one: bool = False,
                       split: str | None = None,
                       num_batches: int = 4,
                       cfg_options: dict | None = None,
                       device: str | None = None) -> list[Path]:
    """Score a detector with one layer or stage quantized at a time, or all but one.

    A layer that is switched changes the statistics behind it, so those of BN are estimated anew,
    from the same training batches, for each score.

    Args:
        config: Config of a low-bit detector.
        checkpoint: Its checkpoint, or that of its float twin: then the intervals are
            initialized from training data.
        out: As for :func:`report_level_statistics`.
        by: ``'stage'`` or ``'layer'``.
        groups: Shell patterns over the names of the layers, each a group; replaces
            ``by``.
        metric: Name of a metric of the evaluator in which more is better, such as
            ``'coco/bbox_mAP'``. By default the score is the training loss, which is quicker.
        all_but_one: Leave one group in float instead of quantizing it alone.
        split: By default ``'train'`` for the loss and ``'test'`` for a metric.
        num_batches: Batches for the loss and for the statistics of BN.
        cfg_options: Dotted keys of the config and their new values.
        device: By default a GPU if there is one.

    Returns:
        The files.

    Raises:
        ValueError: The model has no quantized layer, or a pattern matches none.
    """
    cfg, model = load_detector(config, checkpoint, cfg_options, device)
    chosen = group_layers(quantized_layers(model), by, groups)
    initialize_intervals(cfg, model)
    score = _loss_score(cfg, split or 'train', num_batches) if metric is None else detection_score(
        cfg, split or 'test', metric)
    batches = list(iterate_batches(cfg, 'train', num_batches))

    def score_with_fitting_norms(model: nn.Module) -> float:
        with reestimated_norms(model, batches):
            return score(model)

    result = sensitivity(
        model,
        chosen,
        score_with_fitting_norms,
        higher_is_better=metric is not None,
        all_but_one=all_but_one,
        keep_normalized=not is_float_checkpoint(checkpoint))
    name = 'sensitivity_all_but_one' if all_but_one else 'sensitivity'
    return _write(
        _folder(cfg, out), name, sensitivity_table(result),
        {name: plot_sensitivity(result, metric or 'loss')})


def report_size(cfg: Config,
                model: nn.Module,
                rows: Sequence[LayerQuantization],
                out: _PathLike | None = None,
                shape: tuple[int, int] | None = None) -> list[Path]:
    """Bytes of the weights and bit operations of every layer, beside those of the float twin.

    Args:
        cfg: Config of a detector.
        model: The detector.
        rows: Its quantization table.
        out: As for :func:`report_level_statistics`.
        shape: Height and width of the image in pixels; by default that
            of the config's test pipeline, see :func:`mmaqd.analysis.image_size`.

    Returns:
        The files.
    """
    height, width = shape or image_size(cfg)
    macs = detector_macs(model, height, width)
    layers = layer_sizes(with_float_work(rows, macs), macs)
    files = _write(_folder(cfg, out), 'size', size_table(layers), {})
    print(f'One image of {height} x {width} pixels. {size_summary(layers)}')
    return files


def _folder(cfg: Config, out: _PathLike | None) -> Path:
    return Path(out or Path(cfg.work_dir, 'analysis'))


def _matching(items: Sequence[Any], pattern: str) -> list[Any]:
    """The items whose layer matches a pattern.

    Raises:
        ValueError: There are none.
    """
    found = [item for item in items if fnmatchcase(item.layer, pattern)]
    if not found:
        layers = dict.fromkeys(item.layer for item in items)
        raise ValueError(f'The pattern {pattern!r} matches no layer. These are there: '
                         f'{", ".join(layers)}.')
    return found


def _loss_score(cfg: Config, split: str, num_batches: int) -> Score:
    batches = list(iterate_batches(cfg, split, num_batches))
    return lambda model: mean_loss(model, batches)


def _write(folder: Path,
           name: str,
           rows: Sequence[Row],
           figures: Mapping[str, Figure],
           show: bool = True) -> list[Path]:
    """Write a table and pictures, and say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    files = write_rows(rows, folder / name)
    for title, figure in figures.items():
        files.append(folder / f'{title}.png')
        figure.savefig(files[-1], dpi=_DPI)
    if show:
        print(format_rows(rows))
    print('Written: ' + ', '.join(str(path) for path in files))
    return files
