"""What a long run holds on to: python -m tests.faults.growth --iterations 1000.

Trains a tiny 4-bit RetinaNet and predicts with it, and tells after each tenth of the iterations how
much memory, how many threads and open files the process has.
"""
from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import make_runner

TENTHS = 10


class Held(NamedTuple):
    """What a process holds."""

    megabytes: float
    threads: int
    files: int

    @classmethod
    def now(cls) -> Held:
        """Of this process."""
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        threads, files = (len(os.listdir(f'/proc/self/{each}')) for each in ('task', 'fd'))
        return cls(pages * os.sysconf('SC_PAGE_SIZE') / 2**20, threads, files)


class RecordHook(Hook):
    """Appends what is held after each tenth of a run."""

    def __init__(self, records: list[Held]) -> None:
        self.records = records

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if (runner.iter + 1) % (runner.max_iters // TENTHS) == 0:
            self.records.append(Held.now())


def iteration_cfg(folder: Path, iterations: int) -> Config:
    """A run by iterations that logs, validates and keeps one checkpoint in each tenth."""
    cfg = run_cfg(make_coco(folder / 'data'), folder / 'work', bits=4)
    every = iterations // TENTHS
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=every)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=every, max_keep_ckpts=1)
    return cfg


def train(folder: Path, iterations: int) -> tuple[Runner, list[Held]]:
    """Train; what was held after each tenth."""
    records: list[Held] = []
    runner = make_runner(iteration_cfg(folder, iterations))
    runner.register_hook(RecordHook(records), 'VERY_LOW')
    runner.train()
    return runner, records


def predict(runner: Runner, iterations: int) -> list[Held]:
    """Predict; what was held after each tenth."""
    records, model = [], runner.model.eval()
    batch = next(iter(runner.val_dataloader))
    with torch.no_grad():
        for number in range(1, iterations + 1):
            model.val_step(batch)
            if number % (iterations // TENTHS) == 0:
                records.append(Held.now())
    return records


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--iterations', type=int, default=1000)
    iterations = parser.parse_args().iterations
    with tempfile.TemporaryDirectory() as folder:
        runner, training = train(Path(folder), iterations)
        print('after | training: MiB, threads, files | prediction: the same')
        for tenth, pair in enumerate(zip(training, predict(runner, iterations)), 1):
            cells = [f'{each.megabytes:.0f}, {each.threads}, {each.files}' for each in pair]
            print(' | '.join([str(tenth * iterations // TENTHS), *cells]))


if __name__ == '__main__':
    main()
