"""Train a config in a process of its own that kills itself: python -m tests.helpers.killed_run."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]


class KillHook(Hook):
    """Sends SIGKILL to its own process after a training iteration, as ``kill -9`` does."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(cfg: Config, path: Path, iteration: int) -> None:
    """Run ``cfg`` (written to ``path``) in another process until it dies after an iteration."""
    cfg.dump(str(path))
    with open(path.with_suffix('.log'), 'w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'tests.helpers.killed_run',
             str(path), str(iteration)],
            cwd=ROOT,
            env={
                **os.environ, 'OMP_NUM_THREADS': '1'
            },
            stdout=log,
            stderr=log,
            start_new_session=True)
        try:
            code = process.wait()
        finally:
            _end_workers(process.pid)
    assert code == -signal.SIGKILL, path.with_suffix('.log').read_text()[-4000:]


def _end_workers(group: int) -> None:
    """End the data loader's workers that a killed process leaves behind."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == '__main__':
    torch.set_num_threads(1)
    runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))
    runner.register_hook(KillHook(int(sys.argv[2])))
    runner.train()
