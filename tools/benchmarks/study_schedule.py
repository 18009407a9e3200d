"""Performs the runs of the study in processes of their own, several at a time."""
from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import IO, Callable, Optional, Sequence

import torch
from study_runs import TOOLS, Run, StaleRunError

from mmaqd.demo.commands import shown_path, start_tool

_TAIL_LINES = 40
_LOG = 'study.log'


@dataclass
class _Active:
    """A step that is going on."""

    run: Run
    step: str
    slot: dict[str, str]
    process: subprocess.Popen
    log: IO[str]
    began: float


class Schedule:
    """Performs runs: what a run needs comes before it, and a failure stops only what needs it.

    Args:
        runs: The runs, in the order in which they are to begin.
        slots: Environment variables of each run that goes on at a time.
        report: Takes lines for the person who watches.
        poll_seconds: Pause between two looks at what goes on.

    Attributes:
        failures: Runs that failed or could not begin, with the reason.
    """

    def __init__(self,
                 runs: Sequence[Run],
                 slots: Sequence[dict[str, str]],
                 report: Callable[[str], None] = print,
                 poll_seconds: float = 1.0) -> None:
        self.runs = list(runs)
        self.report = report
        self.failures: dict[Run, str] = {}
        self._poll_seconds = poll_seconds
        self._slots = list(slots)
        self._waiting = list(runs)
        self._active: list[_Active] = []
        self._told: set[Run] = set()

    def perform(self) -> dict[Run, str]:
        """Do all that is left to do.

        Runs that another process works on are waited for. When this call is interrupted, what goes
        on is ended; the next call goes on there.

        Returns:
            :attr:`failures`.
        """
        try:
            while self._waiting or self._active:
                self._begin_runs()
                if not self._end_steps() and (self._waiting or self._active):
                    time.sleep(self._poll_seconds)
        finally:
            for active in self._active:
                active.process.terminate()
                self._close(active, _cpu_seconds(active.process, 0))
                active.run.release()
        return self.failures

    def _begin_runs(self) -> None:
        for run in list(self._waiting):
            failed = next((need for need in run.needs if need in self.failures), None)
            if failed:
                self._waiting.remove(run)
                self._fail(run, f'it starts from {failed}, which failed')
            elif self._slots and all(need.is_trained for need in run.needs) and self._acquire(run):
                self._waiting.remove(run)
                self._next_step(run, self._slots.pop(0))

    def _next_step(self, run: Run, slot: dict[str, str], previous: Optional[str] = None) -> None:
        """Begin the next step of a run, or release what it holds when there is none."""
        try:
            step = run.next_step()
            if step is not None and step == previous:
                raise StaleRunError(f'{TOOLS[step]} ended without an error, but wrote nothing '
                                    f'below {run.folder}.')
        except StaleRunError as error:
            self._release(run, slot)
            self._fail(run, str(error))
            return
        if step is None:
            self._release(run, slot)
            self._succeed(run)
            return
        self.report(f'{run}: {step}')
        log = open(run.folder / _LOG, 'a')
        process = start_tool(TOOLS[step], run.begin(step), slot, log)
        self._active.append(_Active(run, step, slot, process, log, time.monotonic()))

    def _end_steps(self) -> bool:
        """Take note of the steps that have ended; whether there were any."""
        ended = [(active, _cpu_seconds(active.process, os.WNOHANG)) for active in self._active]
        ended = [(active, cpu_seconds) for active, cpu_seconds in ended if cpu_seconds is not None]
        for active, cpu_seconds in ended:
            self._active.remove(active)
            self._close(active, cpu_seconds)
            if active.process.returncode == 0:
                self._next_step(active.run, active.slot, active.step)
            else:
                self._release(active.run, active.slot)
                self._fail(active.run, _reason(active))
        return bool(ended)

    def _close(self, active: _Active, cpu_seconds: float) -> None:
        active.log.close()
        active.run.end(cpu_seconds, time.monotonic() - active.began)
        if active.step == 'test' and active.process.returncode == 0:
            active.run.collect()

    def _acquire(self, run: Run) -> bool:
        acquired = run.acquire()
        if not acquired and run not in self._told:
            self._told.add(run)
            self.report(f'{run}: another process works on it, waiting for that')
        return acquired

    def _release(self, run: Run, slot: dict[str, str]) -> None:
        run.release()
        self._slots.append(slot)

    def _fail(self, run: Run, reason: str) -> None:
        self.failures[run] = reason
        self.report(f'FAILED: {run}: {reason}')

    def _succeed(self, run: Run) -> None:
        done = len(self.runs) - len(self._waiting) - len(self._active) - len(self.failures)
        ap = 100 * run.results['metrics']['bbox_mAP']
        self.report(f'[{done}/{len(self.runs)}] {run}: AP {ap:.1f}{self._time_left()}')

    def _time_left(self) -> str:
        """An estimate from the runs that are finished, a run of the same detector for each."""
        left = [*self._waiting, *(active.run for active in self._active)]
        slots = len(self._slots) + len(self._active)
        rates: dict[str, list[float]] = {}
        for run in self.runs:
            if run.epochs and run.seconds:
                rates.setdefault(run.row.detector, []).append(run.seconds / run.epochs)
        if not left or not all(run.row.detector in rates for run in left):
            return ''
        seconds = sum(run.epochs * statistics.median(rates[run.row.detector]) for run in left)
        return f'; about {seconds / slots / 3600:.1f} h left'


def make_slots(jobs: Optional[int]) -> list[dict[str, str]]:
    """Environment variables for each of ``jobs`` runs at a time, by default one per GPU or one."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = named.split(',') if named else [str(index) for index in range(torch.cuda.device_count())]
    if not torch.cuda.is_available():
        return [dict(OMP_NUM_THREADS='1') for _ in range(jobs or 1)]
    return [dict(CUDA_VISIBLE_DEVICES=gpus[job % len(gpus)]) for job in range(jobs or len(gpus))]


def _cpu_seconds(process: subprocess.Popen, options: int) -> Optional[float]:
    """CPU time of a process and its children when it has ended, which sets its ``returncode``."""
    pid, status, usage = os.wait4(process.pid, options)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _reason(active: _Active) -> str:
    log = active.run.folder / _LOG
    tail = log.read_text(errors='replace').splitlines()[-_TAIL_LINES:]
    return '\n'.join([
        f'{TOOLS[active.step]} ended with exit code {active.process.returncode}. The end of '
        f'{shown_path(log)}:', *tail
    ])
