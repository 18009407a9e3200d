"""How much a low-bit detector suffers from each layer or stage that is quantized."""
from __future__ import annotations

import copy
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn as nn
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.utils import track_iter_progress
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.compat import check_data
from mmaqd.engine.batch_norm import reestimate_batch_norm
from mmaqd.quantizers import modes_kept

from .switching import check_layers, only_quantized, quantized_layers

Score = Callable[[nn.Module], float]


@dataclass(frozen=True)
class GroupScore:
    """The model's score with one group of layers quantized alone, or left out.

    Attributes:
        group: Name of the group.
        num_layers: Number of layers in it.
        score: Loss, or AP.
        change: ``score`` minus that of the reference.
    """

    group: str
    num_layers: int
    score: float
    change: float


@dataclass(frozen=True)
class Sensitivity:
    """Scores of all groups.

    Attributes:
        reference: Score with nothing quantized; with ``all_but_one`` with all quantized.
        groups: The group that quantization harms most comes first.
        all_but_one: Whether a group was left out instead of quantized alone.
    """

    reference: float
    groups: list[GroupScore]
    all_but_one: bool


def sensitivity(model: nn.Module,
                groups: Mapping[str, Sequence[str]],
                score: Score,
                higher_is_better: bool = False,
                all_but_one: bool = False,
                keep_normalized: bool = True) -> Sensitivity:
    """Score a model with one group of layers quantized at a time and all else in float.

    A progress bar on the console shows how far it is.

    Args:
        model: A low-bit model whose intervals have values; unchanged afterwards.
        groups: Layers by the name of their group, see
            :func:`mmaqd.analysis.group_layers`.
        score: Gives loss or AP of the model as it is.
        higher_is_better: Whether the score is one like AP.
        all_but_one: The reverse: everything is quantized but one group.
        keep_normalized: See :func:`mmaqd.analysis.only_quantized`.

    Returns:
        The scores.

    Raises:
        ValueError: The model has no quantized layer, or a group names a layer that is none.
    """
    everything = set(quantized_layers(model))
    for names in groups.values():
        check_layers(names, everything)

    def score_with(quantized: set[str]) -> float:
        with only_quantized(model, quantized, keep_normalized):
            return score(model)

    reference = score_with(everything if all_but_one else set())
    scores = []
    for group in track_iter_progress(list(groups), file=sys.stdout):
        names = set(groups[group])
        value = score_with(everything - names if all_but_one else names)
        scores.append(GroupScore(group, len(names), value, value - reference))
    # A group that is left out does good where its quantization does harm.
    harm = -1 if higher_is_better != all_but_one else 1
    return Sensitivity(reference, sorted(scores, key=lambda each: -harm * each.change), all_but_one)


def mean_loss(model: nn.Module, batches: Sequence[Any]) -> float:
    """Training loss averaged over batches, with BN on its running statistics.

    Args:
        model: A detector; its mode is as before afterwards.
        batches: Training batches, at least one.

    Returns:
        The sum of all losses, averaged over the batches.
    """
    with modes_kept(model), torch.no_grad():
        model.train()  # some heads predict in other units in evaluation
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        losses = []
        for batch in batches:
            data = model.data_preprocessor(batch, True)
            losses.append(float(model.parse_losses(model(**data, mode='loss'))[0]))
    return sum(losses) / len(losses)


def detection_score(cfg: Config, split: str = 'test', metric: str = 'coco/bbox_mAP') -> Score:
    """The function that evaluates a model on a split of a config.

    Args:
        cfg: Config of the model, with data loader and evaluator of the split.
        split: ``'val'`` or ``'test'``.
        metric: Name of the metric that it gives.

    Returns:
        Takes the model.

    Raises:
        FileNotFoundError: Data are missing.
        KeyError: On evaluation, if there is no such metric.
    """
    check_data(cfg, (split, ))
    loader = Runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0)
    evaluator = Evaluator(cfg[f'{split}_evaluator'])
    evaluator.dataset_meta = loader.dataset.metainfo

    def score(model: nn.Module) -> float:
        with modes_kept(model), torch.no_grad():
            model.eval()
            for batch in loader:
                evaluator.process(model.test_step(batch), batch)
        with redirect_stdout(StringIO()):  # tables of the metric between the progress bars
            metrics = evaluator.evaluate(len(loader.dataset))
        if metric not in metrics:
            raise KeyError(f'The evaluator of the {split} split gives no {metric!r}; it gives '
                           f'{", ".join(metrics)}.')
        return float(metrics[metric])

    return score


@contextmanager
def reestimated_norms(model: nn.Module, batches: Iterable[Any]) -> Iterator[None]:
    """Within the block every BN has the statistics of these batches.

    A conv whose weights or input change from quantized to float, or from normalized to as they
    are, gives outputs of another scale, which the running statistics behind it do not fit.

    Args:
        model: A detector; unchanged afterwards.
        batches: What its data preprocessor takes, at least one.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    norms = [model.get_submodule(name) for name in names]
    kept = [copy.deepcopy(norm.state_dict()) for norm in norms]
    reestimate_batch_norm(model, batches, names)
    try:
        yield
    finally:
        for norm, state in zip(norms, kept):
            norm.load_state_dict(state)


def sensitivity_table(result: Sensitivity) -> list[dict[str, Any]]:
    """A row for the reference and one for each group, rows for :func:`format_rows`.

    Args:
        result: From :func:`sensitivity`.

    Returns:
        The group that quantization harms most comes first.
    """
    quantized = 'all' if result.all_but_one else 'none'
    rows = [dict(quantized=quantized, layers=None, score=result.reference, change=0.0)]
    for each in result.groups:
        name = f'all but {each.group}' if result.all_but_one else each.group
        rows.append(
            dict(quantized=name, layers=each.num_layers, score=each.score, change=each.change))
    return rows


def plot_sensitivity(result: Sensitivity, score_name: str = 'loss') -> Figure:
    """Draw how each group changes the score, most harmful quantization on top.

    Args:
        result: From :func:`sensitivity`.
        score_name: What the score is, for the axis.

    Returns:
        To be saved by its ``savefig``.
    """
    figure = Figure(figsize=(8, 1.4 + 0.25 * len(result.groups)), layout='tight')
    panel = figure.subplots()
    names = [f'{each.group} ({each.num_layers})' for each in result.groups]
    panel.barh(names, [each.change for each in result.groups], color='tab:blue')
    panel.invert_yaxis()
    panel.tick_params(axis='y', labelsize=8)
    what, against = ('left in float', 'all') if result.all_but_one else ('quantized', 'nothing')
    panel.set_xlabel(f'{score_name} minus that with {against} quantized ({result.reference:.4g})')
    panel.set_title(f'one group (number of layers) {what} at a time', fontsize=10)
    panel.axvline(0, color='black', linewidth=0.8)
    panel.grid(axis='x', alpha=0.3)
    return figure
