r"""Train and evaluate the rows of accuracy_rows.yml on BCCD, over seeds, and record the figures.

    python tools/benchmarks/accuracy_study.py --rows '*c16*-lsq_*' --seeds 9 10 11 --jobs 2

Each run has its own folder, ``OUT/ROW/seed_K``, trained by tools/train.py and evaluated by
tools/test.py; what it starts from, learns from and is compared with is run as well. Killed at any
time, the study goes on where it was when it is called again.
"""
from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import torch
from accuracy_runs import ROWS, SPLITS, Row, Run, read_rows

from mmaqd.demo.commands import shown_path, start_tool

#: Rows by name, each with its settings and its runs by seed.
Record = dict[str, dict[str, Any]]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', nargs='+', default=['*'], help='names or patterns of rows')
    parser.add_argument('--seeds', nargs='+', type=int, help='instead of those of each row')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--table', type=Path, default=ROWS, help='file of the rows')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/accuracy_study'))
    parser.add_argument('--record', type=Path, help='file of the figures (OUT/accuracy.json)')
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='test',
        help='val: train on train, evaluate on val, to choose settings; give it its own --out')
    args = parser.parse_args(arguments)
    args.record = args.record or args.out / 'accuracy.json'
    return args


class Study:
    """Rows, the folder of their runs and the record of their figures.

    Raises:
        ValueError: A row is recorded with other settings than it has in the table, or with runs of
            another split.
    """

    def __init__(self, rows: Mapping[str, Row], out: Path, record: Path, split: str) -> None:
        self.rows, self.out, self.record, self.split = rows, out, record, split
        self._runs: dict[tuple[str, int], Run] = {}
        for name, recorded in read_record(record).items():
            if name in rows and any(recorded[key] != value
                                    for key, value in rows[name].settings.items()):
                raise ValueError(f'{record} has {name} with other settings than the table has now. '
                                 'Give the changed row another name.')
            if any(run['split'] != split for run in recorded['runs'].values()):
                raise ValueError(f'{record} has runs of another split than {split}: give another '
                                 '--record.')

    def run(self, name: str, seed: int) -> Run:
        """The one run of a row with a seed."""
        if (name, seed) not in self._runs:
            row = self.rows[name]
            needs = {role: self.run(other, seed) for role, other in row.needs.items()}
            self._runs[name, seed] = Run(row, seed, self.out, self.split, needs)
        return self._runs[name, seed]

    def select(self, patterns: Iterable[str], seeds: Sequence[int] | None) -> list[Run]:
        """The runs that are asked for and not recorded, and those that they need.

        Raises:
            ValueError: A pattern matches no row, or a run needs one that was recorded elsewhere.
        """
        recorded = read_record(self.record)
        pending = [run for pattern in patterns for run in self._asked_for(pattern, seeds)]
        pending = [run for run in pending if not _is_in(recorded, run)]
        chosen: dict[Run, None] = {}
        while pending:
            run = pending.pop(0)
            chosen[run] = None
            for need in run.needs.values():
                if not _is_in(recorded, need):
                    pending.append(need)
                elif not need.is_trained:
                    raise ValueError(f'{run} needs the checkpoint of {need}, which is recorded but '
                                     f'not in {need.folder}. Trained again on another machine it '
                                     'would be another model: take other seeds or --record.')
        return list(chosen)

    def _asked_for(self, pattern: str, seeds: Sequence[int] | None) -> list[Run]:
        rows = [row for name, row in self.rows.items() if fnmatchcase(name, pattern)]
        if not rows:
            raise ValueError(f'--rows: {pattern!r} matches none of {", ".join(self.rows)}.')
        return [
            self.run(name, seed) for row in rows for seed in seeds or row.seeds
            for name in (row.twin, row.name) if name
        ]

    def add(self, run: Run) -> float:
        """Record a run that is tested; its AP in percent."""
        content, result = read_record(self.record), run.result()
        recorded = content.setdefault(run.row.name, {**run.row.settings, 'runs': {}})
        recorded['runs'][str(run.seed)] = result
        write_record(self.record, content)
        return 100 * result['metrics']['bbox_mAP']


def read_record(path: Path) -> Record:
    """A record, empty if there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_record(path: Path, content: Record) -> None:
    """Write a record in one step, a line for each run."""
    rows = []
    for name, row in content.items():
        lines = [f'   {json.dumps(seed)}: {json.dumps(run)}' for seed, run in row['runs'].items()]
        settings = json.dumps({key: row[key] for key in ('config', 'overrides', 'needs')})
        rows.append(f' {json.dumps(name)}: {settings[:-1]},\n  "runs": {{\n' + ',\n'.join(lines) +
                    '}}')
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text('{\n' + ',\n'.join(rows) + '\n}\n')
    os.replace(partial, path)


class Schedule:
    """Does what is left to do of some runs, each after those that it needs, several at a time.

    Attributes:
        failed: Runs that failed. What needs one of them is not begun.
    """

    def __init__(self, study: Study, runs: Sequence[Run], jobs: int, poll_seconds: float = 1.0):
        self.failed: list[Run] = []
        self._study, self._poll_seconds = study, poll_seconds
        left = [run for run in runs if run.next_step() is not None]
        self._order = TopologicalSorter({run: set(run.needs.values()) & set(left) for run in left})
        self._slots = _make_slots(jobs)
        self._active: dict[Run, tuple[str, subprocess.Popen, dict[str, str]]] = {}

    def perform(self) -> None:
        """Do it all. When this call is interrupted, what goes on is ended; the next goes on there.
        """
        ready: list[Run] = []
        self._order.prepare()
        try:
            while True:
                ready += self._order.get_ready()
                while ready and self._slots:
                    self._begin(ready.pop(0), self._slots.pop(0))
                if not self._active:
                    return
                time.sleep(self._poll_seconds)
                for run in list(self._active):
                    self._end(run)
        finally:
            for _, process, _ in self._active.values():
                process.terminate()
                process.wait()

    def _begin(self, run: Run, slot: dict[str, str]) -> None:
        step = run.next_step()
        run.begin(step)
        print(f'{run}: {step}')
        with open(run.log, 'a') as log:
            process = start_tool(f'{step}.py', run.arguments(step), slot, log)
        self._active[run] = step, process, slot

    def _end(self, run: Run) -> None:
        step, process, slot = self._active[run]
        if process.poll() is None:
            return
        del self._active[run]
        if process.returncode:
            self.failed.append(run)
            print(f'FAILED: {run}: {step}.py ended with exit code {process.returncode}, see '
                  f'{shown_path(run.log)}.')
        elif step == 'test':
            print(f'{run}: AP {self._study.add(run):.1f}')
            run.end(step)
            self._order.done(run)
        else:
            run.end(step)
            self._begin(run, slot)
            return
        self._slots.append(slot)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the number of failed runs."""
    args = parse_args(arguments)
    study = Study(read_rows(args.table), args.out, args.record, args.split)
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / 'lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'Another study works in {args.out}: wait for it, or give another '
                             '--out.') from None
        runs = study.select(args.rows, args.seeds)
        for run in runs:
            if run.next_step() is None:  # and not in this record
                study.add(run)
        schedule = Schedule(study, runs, args.jobs)
        schedule.perform()
    return len(schedule.failed)


def _is_in(record: Record, run: Run) -> bool:
    return str(run.seed) in record.get(run.row.name, {}).get('runs', {})


def _make_slots(jobs: int) -> list[dict[str, str]]:
    """Environment variables for each run that goes on at a time."""
    gpus = torch.cuda.device_count()
    if not gpus:
        return [dict(OMP_NUM_THREADS='1') for _ in range(jobs)]
    return [dict(CUDA_VISIBLE_DEVICES=str(job % gpus)) for job in range(jobs)]


if __name__ == '__main__':
    try:
        sys.exit(min(main(), 1))
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. Call it again to go on.')
    except ValueError as error:
        sys.exit(str(error))
