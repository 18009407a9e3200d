"""Tables, JSON and plots of the study, from the metrics that its runs wrote."""
from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean
from typing import Any, Mapping, Optional, Sequence

from study_plots import PLOTS
from study_rows import FLOAT_BITS, GROUPS, Row
from study_runs import Run, StaleRunError
from study_statistics import Difference, compare, summarize

from mmaqd.demo.stages import write_json

TRAINED_ON = dict(
    test='Trained on trainval, evaluated on test.', val='Trained on train, evaluated on val.')
MARKERS = ('<!-- accuracy_study.py: begin -->', '<!-- accuracy_study.py: end -->')
#: Attributes of a row that decide what its runs compute.
SETTINGS = ('config', 'overrides', 'needs')
_HEADER = ('model', 'bits', 'head', 'seeds', 'AP', 'AP50', 'AP75', 'minus float')
_METRICS = ('bbox_mAP_50', 'bbox_mAP_75')
#: Results by the name of the row, then by seed.
Results = Mapping[str, Mapping[int, dict[str, Any]]]


def read_results(runs: Sequence[Run]) -> dict[str, dict[int, dict[str, Any]]]:
    """What the finished runs wrote; runs with other settings than their row are left out."""
    results: dict[str, dict[int, dict[str, Any]]] = {run.row.name: {} for run in runs}
    for run in runs:
        try:
            run.check_settings()
        except StaleRunError:
            continue
        if run.results is not None:
            results[run.row.name][run.seed] = run.results
    return results


def values(results: Results, row: str, metric: str = 'bbox_mAP') -> dict[int, float]:
    """A metric in percent, by seed."""
    return {seed: 100 * each['metrics'][metric] for seed, each in results.get(row, {}).items()}


def settings_of(row: Row) -> dict[str, Any]:
    """What ``accuracy.json`` keeps of a row, by which it is known again: all that its runs use."""
    return {key: getattr(row, key) for key in SETTINGS}


def write_report(rows: Mapping[str, Row], results: Results, folder: Path) -> Path:
    """Write ``accuracy.md``, ``accuracy.json`` and the plots.

    Args:
        rows: The rows of the report.
        results: See :data:`Results`; rows without any are counted only.
        folder: Folder for the files, made when missing.

    Returns:
        Path of the Markdown file.
    """
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    parts = [_provenance(results), '']
    for name, group in GROUPS.items():
        members = [row for row in rows.values() if name in row.groups]
        parts += [f'### {group.title}', '', *_table(rows, members, group.reference, results), '']
        figure = PLOTS[name](members, results, values)
        if figure is not None:
            figure.savefig(folder / 'images' / f'accuracy_{name}.png', dpi=120)
            parts += [f'![{group.title}](images/accuracy_{name}.png)', '']
    write_json(folder / 'accuracy.json', _as_json(rows, results))
    page = folder / 'accuracy.md'
    page.write_text('\n'.join(parts))
    return page


def update_page(page: Path, report: Path) -> None:
    """Put a report between the markers of a page, and its plots and JSON beside the page.

    Raises:
        ValueError: The page does not have the two markers.
    """
    text = page.read_text()
    begin, end = (text.find(marker) for marker in MARKERS)
    if not 0 <= begin < end:
        raise ValueError(f'{page} needs the lines {MARKERS[0]} and {MARKERS[1]}, in this order, '
                         'between which the tables are to stand.')
    page.write_text(f'{text[:begin]}{MARKERS[0]}\n\n{report.read_text()}\n{text[end:]}')
    shutil.copyfile(report.with_suffix('.json'), page.with_suffix('.json'))
    (page.parent / 'images').mkdir(exist_ok=True)
    for plot in (report.parent / 'images').glob('accuracy_*.png'):
        shutil.copyfile(plot, page.parent / 'images' / plot.name)


def _provenance(results: Results) -> str:
    """Data, versions and machines of the runs, all that occur."""
    runs = [run for by_seed in results.values() for run in by_seed.values()]
    splits = sorted({run['split'] for run in runs})
    versions = sorted({', '.join(f'{name} {each}' for name, each in run['versions'].items())
                       for run in runs})  # yapf: disable
    machines = sorted({run['machine'] for run in runs})
    named = [TRAINED_ON[split] for split in splits]
    return (f'{len(runs)} runs. {" ".join(named)} Versions: {"; or ".join(versions) or "none"}. '
            f'Processors: {"; or ".join(machines) or "none"}.')


def _table(rows: Mapping[str, Row], members: Sequence[Row], reference: str,
           results: Results) -> list[str]:
    compared = [name for row in members for name in (row.twin, row.reference)]
    names = {row.name for row in members}.union(compared) - {None}
    header = [*_HEADER, *([f'minus {reference}'] if reference else []), 'CPU min']
    run = [row for name, row in rows.items() if name in names and results.get(name)]
    lines = [_markdown(_line(row, bool(reference), results)) for row in run]
    table = [_markdown(header), '|' + '---|' * len(header), *lines] if run else []
    left = len(names & rows.keys()) - len(run)
    return [*table, *(['', f'Not run yet: {left} of {left + len(run)} rows.'] if left else [])]


def _line(row: Row, has_reference: bool, results: Results) -> list[str]:
    found = results.get(row.name, {})
    aps = values(results, row.name)
    bits = 'float' if row.bits == FLOAT_BITS else f'{row.bits}/{row.bits}'
    cells = [
        f'{row.detector}, {row.label}', bits, row.norm,
        str(len(found)),
        _mean_text(aps, with_std=True)
    ]
    cells += [_mean_text(values(results, row.name, metric), with_std=False) for metric in _METRICS]
    for other in (row.twin, row.reference)[:1 + has_reference]:
        cells.append(_difference_text(compare(aps, values(results, other)) if other else None))
    minutes = [each['cpu_seconds'] / 60 for each in found.values() if each['all_is_measured']]
    return [*cells, f'{fmean(minutes):.1f}' if minutes else '']


def _mean_text(by_seed: Mapping[int, float], with_std: bool) -> str:
    summary = summarize(by_seed)
    assert summary is not None, 'rows without results are not shown'
    spread = f' ± {summary.std:.1f}' if with_std and summary.std is not None else ''
    return f'{summary.mean:.1f}{spread}'


def _difference_text(difference: Optional[Difference]) -> str:
    if difference is None:
        return ''
    p = '' if difference.p is None else f', p {difference.p:.2g}'
    return f'{difference.mean:+.1f} (n {len(difference.seeds)}{p})'


def _markdown(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _as_json(rows: Mapping[str, Row], results: Results) -> dict[str, Any]:
    content = {}
    for name, row in rows.items():
        aps = values(results, name)
        summary = summarize(aps)
        content[name] = dict(
            **settings_of(row),
            ap=None if summary is None else vars(summary),
            minus_twin=_difference(aps, results, row.twin),
            minus_reference=_difference(aps, results, row.reference),
            runs={
                str(seed): run
                for seed, run in sorted(results.get(name, {}).items())
            })
    return content


def _difference(aps: Mapping[int, float], results: Results,
                other: Optional[str]) -> Optional[dict[str, Any]]:
    difference = compare(aps, values(results, other)) if other else None
    return None if difference is None else dict(row=other, **vars(difference))
