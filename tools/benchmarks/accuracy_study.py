r"""Accuracy on BCCD: LIQ with multi-level BN against float and against other methods, over seeds.

    python tools/benchmarks/accuracy_study.py --jobs 2              # all that is left to do
    python tools/benchmarks/accuracy_study.py --groups main --seeds 0
    python tools/benchmarks/accuracy_study.py --list

The rows are in tools/benchmarks/study_grid.py. Each run has its own folder, `<out>/<row>/seed_<k>`,
trained by tools/train.py and evaluated by tools/test.py. Killed at any time, the study goes on
where it was when it is called again. Several of these processes may share one folder.

Where the folders of earlier runs are gone, take other seeds and let the report have both:

    python tools/benchmarks/accuracy_study.py --seeds 3 4 5 \
        --record docs/benchmarks/accuracy.json --page docs/benchmarks/accuracy.md
"""
from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Mapping, Optional, Sequence

from mmengine.logging import MMLogger
from study_grid import all_rows
from study_record import merge, read_record
from study_report import Results, read_results, update_page, write_report
from study_rows import GROUPS, Row
from study_runs import SPLITS, Run, StaleRunError, build_runs
from study_schedule import Schedule, make_slots

_OUT = 'work_dirs/accuracy_study'


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', help=f'folder of the study ({_OUT}, for val {_OUT}_val)')
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='test',
        help='test: train on trainval, for the report; val: train on train, to choose settings')
    parser.add_argument('--rows', nargs='+', default=['*'], help='names or patterns of rows')
    parser.add_argument('--groups', nargs='+', choices=GROUPS, default=list(GROUPS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, help='runs at a time (one, or one per GPU)')
    parser.add_argument('--list', action='store_true', help='only show how far each run is')
    parser.add_argument(
        '--report', action='store_true', help='only write tables and plots of all that is there')
    parser.add_argument(
        '--record', help='accuracy.json of runs on other machines, to be reported as well')
    parser.add_argument('--page', help='also put the tables between the markers of this document')
    args = parser.parse_args(arguments)
    args.out = Path(args.out or (_OUT if args.split == 'test' else f'{_OUT}_{args.split}'))
    return args


def select(rows: Mapping[str, Row], patterns: Sequence[str],
           groups: Sequence[str]) -> dict[str, Row]:
    """The rows asked for, and those that they need or are compared with.

    Raises:
        ValueError: A pattern matches no row.
    """
    chosen = set()
    for pattern in patterns:
        matching = {name for name in rows if fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(f'--rows: {pattern!r} matches none of {", ".join(rows)}.')
        chosen |= {name for name in matching if set(rows[name].groups) & set(groups)}
    pending = list(chosen)
    while pending:
        row = rows[pending.pop()]
        new = {*row.needs.values(), *filter(None, (row.twin, row.reference))} - chosen
        chosen |= new
        pending += new
    return {name: row for name, row in rows.items() if name in chosen}


def state_of(run: Run) -> str:
    """How far a run is, in a word or two."""
    try:
        run.check_settings()
    except StaleRunError:
        return 'other settings'
    if run.results is not None:
        return f'AP {100 * run.results["metrics"]["bbox_mAP"]:.1f}'
    if run.is_trained:
        return 'trained'
    return f'epoch {run.epochs_done}/{run.epochs}' if run.epochs_done else '-'


def show_states(runs: Sequence[Run]) -> None:
    """Print a line for each row, with the state of each seed."""
    states: dict[str, list[str]] = {}
    for run in runs:
        states.setdefault(run.row.name, []).append(f'{run.seed}: {state_of(run)}')
    width = max(map(len, states))
    for name, each in states.items():
        print(name.ljust(width), *(state.ljust(16) for state in each))


def found_seeds(out: Path) -> list[int]:
    """Seeds that any row has a folder of, ascending."""
    return sorted({int(path.name.split('_')[1]) for path in out.glob('*/seed_*')})


def collect_results(args: argparse.Namespace) -> Results:
    """All that there is in the study's folder and, where asked for, in a record."""
    rows = all_rows()
    results = read_results(build_runs(rows, found_seeds(args.out), args.out, args.split))
    if args.record is None:
        return results
    return merge(results, read_record(Path(args.record), rows, args.split), rows)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Do what the command line says; the number of failed runs."""
    args = parse_args(arguments)
    MMLogger.get_current_instance().setLevel('WARNING')  # a line for each config otherwise
    rows = select(all_rows(), args.rows, args.groups)
    runs = build_runs(rows, args.seeds, args.out, args.split)
    if args.list:
        show_states(runs)
        return 0
    failures = {} if args.report else Schedule(runs, make_slots(args.jobs)).perform()
    report = write_report(all_rows(), collect_results(args), args.out / 'report')
    print(f'{report} written.')
    if args.page:
        update_page(Path(args.page), report)
    for run, reason in failures.items():
        print(f'FAILED: {run}: {reason.splitlines()[0]}')
    return len(failures)


if __name__ == '__main__':
    try:
        sys.exit(min(main(), 1))
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. Call it again to go on.')
    except ValueError as error:
        sys.exit(str(error))
