"""Write the tables of docs/benchmarks/accuracy.md and accuracy_settings.md, and the figure.

    python tools/benchmarks/accuracy_report.py

What is between the markers of a page comes from docs/benchmarks/accuracy.json, by the tables of
accuracy_tables.yml; the rest of a page is written by hand.
"""
from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Mapping

import yaml
from accuracy_runs import ROOT
from accuracy_statistics import Difference, compare, compare_resampled
from accuracy_study import Record, read_record
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TABLES = Path(__file__).with_name('accuracy_tables.yml')
PAGES = ('accuracy.md', 'accuracy_settings.md')
_MARKED = re.compile(r'(<!-- table: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)


def main() -> None:
    """Write the pages and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs' / 'benchmarks')
    folder = parser.parse_args().docs
    record, spec = read_record(folder / 'accuracy.json'), read_tables()
    for name in PAGES:
        page = folder / name
        page.write_text(fill(page.read_text(), record, spec['tables']))
    figure = draw(record, [spec['tables'][name] for name in spec['figure']])
    figure.savefig(folder / 'images' / 'accuracy.png', dpi=120)


def read_tables(path: Path = TABLES) -> dict[str, Any]:
    """What ``accuracy_tables.yml`` says."""
    return yaml.safe_load(path.read_text())


def fill(page: str, record: Record, tables: Mapping[str, Any]) -> str:
    """A page with its tables made anew."""

    def table(found: re.Match) -> str:
        begin, name, end = found.groups()
        return begin + '\n'.join(['', *table_lines(record, tables[name]), '', end])

    return _MARKED.sub(table, page)


def table_lines(record: Record, table: Mapping[str, Any]) -> list[str]:
    """A table in Markdown: rows that are each compared with another on the seeds that both have."""
    other = table['other']
    header = [table['rows'], 'seeds', 'AP']
    header += [f'{other}, same seeds', 'difference [95 %]', 'each seed'] if other else []
    lines = [_cells(header), '|' + '---|' * len(header)]
    for label, (row, than) in table['pairs'].items():
        found = aps(record, row)
        cells = [label, _seeds(found), _mean(found)]
        if than:
            difference = compare(found, aps(record, than))
            found = {seed: found[seed] for seed in difference.each}
            same = {seed: aps(record, than)[seed] for seed in difference.each}
            cells = [label, _seeds(found), _mean(found), _mean(same)]
            cells += [_interval(difference) + _over_images(record, row, than)]
            cells += [', '.join(signed(value) for value in difference.each.values())]
        lines.append(_cells(cells + [''] * (len(header) - len(cells))))
    return lines


def draw(record: Record, tables: list[Mapping[str, Any]]) -> Figure:
    """The differences of some tables below each other: seeds as dots, their interval as a bar."""
    counts = [sum(than is not None for _, than in table['pairs'].values()) for table in tables]
    figure = Figure(figsize=(8, 1 + 0.27 * sum(counts)), layout='constrained')
    panels = figure.subplots(len(tables), sharex=True, height_ratios=counts, squeeze=False)
    for panel, table in zip(panels[:, 0], tables):
        _draw(panel, record, table)
    panels[-1, 0].set_xlabel('AP, difference on the same seeds (dots: seeds, bar: 95 % interval)')
    return figure


def aps(record: Record, row: str) -> dict[int, float]:
    """AP in percent, by seed."""
    runs = record[row]['runs']
    return {int(seed): 100 * run['metrics']['bbox_mAP'] for seed, run in runs.items()}


def signed(value: float) -> str:
    """A difference as the tables have it."""
    text = f'{value:+.1f}'
    return '0.0' if float(text) == 0 else text


def _draw(axes: Axes, record: Record, table: Mapping[str, Any]) -> None:
    pairs = {label: pair for label, pair in table['pairs'].items() if pair[1]}
    for height, (row, than) in enumerate(pairs.values()):
        difference = compare(aps(record, row), aps(record, than))
        values = list(difference.each.values())
        axes.plot(values, [height] * len(values), 'o', color='tab:gray', alpha=0.6, markersize=4)
        axes.errorbar(
            difference.mean, height, xerr=difference.interval, fmt='|', color='C0', capsize=3)
    axes.set_yticks(range(len(pairs)), list(pairs))
    axes.set_title(f'{table["rows"]}: minus {table["other"]}', fontsize='medium')
    axes.invert_yaxis()
    axes.axvline(0, color='black', linewidth=0.8)
    axes.grid(axis='x', alpha=0.3)


def _interval(difference: Difference) -> str:
    mean, half = difference.mean, difference.interval
    return signed(mean) + (''
                           if half is None else f' [{signed(mean - half)}, {signed(mean + half)}]')


def _over_images(record: Record, row: str, than: str) -> str:
    """The interval over test images, if every run of both rows recorded what it takes."""
    ours, theirs = (record[name]['runs'] for name in (row, than))
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if not all('resampled' in run for pair in pairs for run in pair):
        return ''
    low, high = compare_resampled(*zip(*((a['resampled'], b['resampled']) for a, b in pairs)))
    return f'; over images [{signed(low)}, {signed(high)}]'


def _mean(values: Mapping[int, float]) -> str:
    mean = fmean(values.values())
    return f'{mean:.1f}' + (f' ± {stdev(values.values()):.1f}' if len(values) > 1 else '')


def _seeds(values: Mapping[int, Any]) -> str:
    seeds = sorted(values)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f'{seeds[0]} to {seeds[-1]}'
    return ', '.join(map(str, seeds))


def _cells(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'


if __name__ == '__main__':
    main()
