"""Trainings that are killed at random moments and resumed, against one that was never stopped.

    python -m tests.faults.killed_runs --count 20
"""
from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config

from tests.faults.test_resuming import LOOPS, TRAINING_STATE, random_cfg
from tests.helpers.data import make_coco
from tests.helpers.runs import differences

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in LOOPS if 'end of' not in name]


def write_cfg(data: Path, folder: Path, name: str) -> tuple[Path, str]:
    """The config of a loop that writes a checkpoint each iteration, and its last checkpoint."""
    changes, _, last = LOOPS[name]
    cfg = random_cfg(data, folder / 'whole')
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.merge_from_dict(Config(changes).to_dict())
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', last


def start(config: Path, work_dir: Path) -> subprocess.Popen:
    """Train by our tool, going on from what is there."""
    log = open(work_dir.with_suffix('.log'), 'a')
    command = [sys.executable, 'tools/train.py', config, '--work-dir', work_dir, '--resume']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True)


def kill_at_random(config: Path, work_dir: Path, seed: int) -> str:
    """Kill a training at a moment between its first checkpoint and its end, and resume it.

    Returns:
        What was there when it died, or what went wrong.
    """
    process, draw = start(config, work_dir), random.Random(seed)
    while process.poll() is None and not list(work_dir.glob('iter_*')):
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 3))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    there = sorted(path.name for path in work_dir.glob('iter_*'))
    resumed = start(config, work_dir)
    try:
        code = resumed.wait(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(resumed.pid, signal.SIGKILL)
        code = 'none within ten minutes'
    return f'killed with {len(there)} checkpoints' + (f', then exit code {code}' if code else '')


def state(path: Path) -> dict:
    saved = torch.load(path, map_location='cpu', weights_only=False)
    return {key: saved[key] for key in TRAINING_STATE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=20, help='runs to kill (%(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    equal = 0
    with TemporaryDirectory() as folder:
        data = make_coco(Path(folder) / 'data', num_images=6)
        for index in range(args.count):
            name = NAMES[index % len(NAMES)]
            place = Path(folder) / str(NAMES.index(name))
            place.mkdir(exist_ok=True)
            config, last = write_cfg(data, place, name)
            if not (place / 'whole' / last).exists():
                start(config, place / 'whole').wait()
            killed = place / f'killed_{index}'
            outcome = kill_at_random(config, killed, args.seed + index)
            same = (killed / last).exists() and not differences(
                state(place / 'whole' / last), state(killed / last))
            equal += same
            print(f'{name}: {outcome}, {"equal" if same else "NOT EQUAL"}', flush=True)
    print(f'{equal} of {args.count} ended equal to the bit.')


if __name__ == '__main__':
    main()
