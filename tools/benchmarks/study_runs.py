"""One run of the study: a row with a seed, in a folder whose files alone say how far it is."""
from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
import zipfile
from copy import deepcopy
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Mapping, Optional, Sequence

import torch
from mmengine.config import Config
from study_rows import Row

from mmaqd.demo.commands import command_line, shown_path
from mmaqd.demo.stages import write_json
from mmaqd.paths import config_path

SPLITS = ('test', 'val')
TOOLS = dict(train='train.py', calibrate='calibrate.py', test='test.py')
METRICS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR_s@1000', 'AR_m@1000',
           'AR_l@1000')
_EVALUATION = {'test_evaluator.metric_items': METRICS, 'test_evaluator.classwise': True}
# What a run depends on. Paths are left out: data and checkpoints may lie elsewhere by now.
_SETTINGS = ('model', 'train_dataloader', 'test_dataloader', 'train_cfg', 'optim_wrapper',
             'param_scheduler', 'custom_hooks', 'randomness')
_PATHS = ('data_root', )
# They change how fast a run is, not what it computes.
_FASTER = (dict(type='mmaqd.ChannelsLastHook'), dict(type='mmaqd.CompileKernelsHook'))


class StaleRunError(ValueError):
    """The folder of a run holds a training with other settings."""


class Run:
    """A row with a seed.

    Args:
        row: What to run.
        seed: Seed of the training, not negative.
        out: Folder of the study.
        split: ``'test'`` trains on trainval, ``'val'`` on train.
        others: Runs of the same seed by the name of their row: all that this one needs.
    """

    def __init__(self, row: Row, seed: int, out: Path, split: str, others: Mapping[str,
                                                                                   Run]) -> None:
        self.row, self.seed, self.split = row, seed, split
        self.folder = Path(out, row.name, f'seed_{seed}')
        self.start = others[row.start] if row.start else None
        self.needs = [others[name] for name in row.needs.values()]
        self._others = others
        self._lock: Optional[IO[str]] = None

    def __str__(self) -> str:
        return f'{self.row.name}, seed {self.seed}'

    @cached_property
    def config(self) -> Config:
        """The config with everything that the row changes in it."""
        config = deepcopy(_load(self.row.config))
        config.merge_from_dict({**self.overrides, 'randomness.seed': self.seed})
        return config

    @cached_property
    def overrides(self) -> dict[str, Any]:
        """Dotted keys that training and testing share, checkpoints and split filled in."""
        named = {name: self._others[other].checkpoint for name, other in self.row.needs.items()}
        filled = {
            key: value.format(**named) if isinstance(value, str) else value
            for key, value in self.row.overrides.items()
        }
        if self.split == 'test':
            return filled
        root = _load(self.row.config).data_root
        return {
            **filled, 'train_dataloader.dataset.ann_file': 'annotations/train.json',
            'test_dataloader.dataset.ann_file': 'annotations/val.json',
            'test_evaluator.ann_file': f'{root}annotations/val.json'
        }

    @property
    def epochs(self) -> int:
        """Epochs of this run itself, 0 if it does not train."""
        return self.config.train_cfg.max_epochs if self.row.trains else 0

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint, there or not."""
        return self.folder / (f'epoch_{self.epochs}.pth' if self.row.trains else 'calibrated.pth')

    @property
    def is_trained(self) -> bool:
        """Whether the last checkpoint is there, as a whole."""
        return is_whole(self.checkpoint)

    @property
    def epochs_done(self) -> int:
        """Epochs of which there is a whole checkpoint."""
        return max((_epoch(path) for path in self._checkpoints() if is_whole(path)), default=0)

    @property
    def results(self) -> Optional[dict[str, Any]]:
        """What :meth:`end` wrote of the test, None before that."""
        path = self.folder / 'metrics.json'
        return json.loads(path.read_text()) if path.is_file() else None

    @property
    def seconds(self) -> Optional[float]:
        """Seconds that it took, None if it is not finished or not all of it was measured."""
        results = self.results
        return results['wall_seconds'] if results and results['all_is_measured'] else None

    def next_step(self) -> Optional[str]:
        """``'train'``, ``'calibrate'``, ``'test'``, or None when there is nothing left to do.

        Raises:
            StaleRunError: The folder holds a training with other settings.
        """
        self.check_settings()
        if self.results is not None:
            return None
        if self.is_trained:
            return 'test'
        return 'train' if self.row.trains else 'calibrate'

    def check_settings(self) -> None:
        """Compare the config that MMEngine wrote into the folder with that of the row.

        Raises:
            StaleRunError: They differ, or there are checkpoints but no config.
        """
        if not (self.results or self.is_trained or self._checkpoints()):
            return
        dumped = self.folder / Path(self.row.config).name
        found = Config.fromfile(dumped, import_custom_modules=False) if dumped.is_file() else {}
        wanted = self.config
        differing = [
            key for key in _SETTINGS if _essentials(found.get(key)) != _essentials(wanted.get(key))
        ]
        if differing:
            raise StaleRunError(
                f'{self.folder} holds a training with other settings in {", ".join(differing)} '
                f'than {self.row.name} has now. Move or remove the folder to run it again, or '
                'give the changed row another name where tools/benchmarks/study_grid.py has it.')

    def arguments(self, step: str) -> list[str]:
        """Command line of the tool for a step, see :data:`TOOLS`."""
        config, options = shown_path(config_path(self.row.config)), dict(self.overrides)
        start = {'load_from': shown_path(self.start.checkpoint)} if self.start else {}
        if step == 'train':
            places = [config, '--work-dir', shown_path(self.folder), '--resume']
            options.update({'randomness.seed': self.seed, **start})
        elif step == 'calibrate':
            places = [config, shown_path(self.start.checkpoint), '--out']
            places += [shown_path(self.checkpoint)]
            places += ['--reestimate-bn'] if self.row.reestimates_bn else []
            options.update({'randomness.seed': self.seed})
        else:
            logs = shown_path(self.folder / 'test')
            places = [config, shown_path(self.checkpoint), '--work-dir', logs]
            options.update(_EVALUATION)
        return [
            *places, '--cfg-options', *(f'{key}={_text(value)}' for key, value in options.items())
        ]

    def begin(self, step: str) -> list[str]:
        """Clear away what a kill left and note that a step begins.

        Returns:
            Command line of the tool.
        """
        if step == 'train':
            self._repair()
        if step == 'test':
            shutil.rmtree(self.folder / 'test', ignore_errors=True)
        fresh = step != 'train' or not self._checkpoints()
        attempts = self._attempts()
        attempts.append(dict(step=step, fresh=fresh, cpu_seconds=None, wall_seconds=None))
        write_json(self.folder / 'attempts.json', attempts)
        return self.arguments(step)

    def end(self, cpu_seconds: float, wall_seconds: float) -> None:
        """Note what the step took that :meth:`begin` began last."""
        attempts = self._attempts()
        attempts[-1].update(cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)
        write_json(self.folder / 'attempts.json', attempts)

    def collect(self) -> None:
        """Write ``metrics.json`` from the log of the test, and keep the last checkpoint only."""
        for logged in (self.folder / 'test').glob('*/*.json'):
            write_json(self.folder / 'metrics.json', self._record(logged))
            for path in self._checkpoints():
                if path != self.checkpoint:
                    path.unlink()

    def acquire(self) -> bool:
        """Lock the folder against other processes; False if one works on it."""
        if is_in_use(self.folder):
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = open(self.folder / 'lock', 'w')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Unlock the folder. The kernel does the same when the process dies."""
        self._lock.close()
        self._lock = None

    def _repair(self) -> None:
        """Remove checkpoints that are cut off, and let MMEngine resume from the last whole one."""
        for path in self._checkpoints():
            if not is_whole(path):
                path.unlink()
        latest, named = max(self._checkpoints(), key=_epoch, default=None), \
            self.folder / 'last_checkpoint'
        if latest is None:
            named.unlink(missing_ok=True)
        else:
            named.write_text(str(latest))

    def _checkpoints(self) -> list[Path]:
        return list(self.folder.glob('epoch_*.pth'))

    def _attempts(self) -> list[dict]:
        path = self.folder / 'attempts.json'
        return json.loads(path.read_text()) if path.is_file() else []

    def _record(self, logged: Path) -> dict[str, Any]:
        # A model that detects nothing at all has no metrics in the log.
        metrics = {f'bbox_{name}': 0.0 for name in METRICS}
        metrics.update((key.split('/')[-1], value)
                       for key, value in json.loads(logged.read_text()).items()
                       if key not in ('time', 'data_time'))
        attempts = self._attempts()
        steps = ('train' if self.row.trains else 'calibrate', 'test')
        return dict(
            row=self.row.name,
            seed=self.seed,
            split=self.split,
            epochs=self.epochs,
            metrics=metrics,
            commands=[command_line(TOOLS[step], self.arguments(step)) for step in steps],
            cpu_seconds=sum(attempt['cpu_seconds'] or 0 for attempt in attempts),
            wall_seconds=sum(attempt['wall_seconds'] or 0 for attempt in attempts),
            # Not steps that were killed together with the study, nor what was trained by hand.
            all_is_measured=attempts[0]['step'] == steps[0] and attempts[0]['fresh']
            and all(attempt['cpu_seconds'] is not None for attempt in attempts),
            versions=_versions(),
            machine=_machine())


def build_runs(rows: Mapping[str, Row], seeds: Sequence[int], out: str | Path,
               split: str) -> list[Run]:
    """All runs, seed by seed, each after those that it needs."""
    runs = []
    for seed in seeds:
        others: dict[str, Run] = {}
        for row in rows.values():
            others[row.name] = Run(row, seed, Path(out), split, others)
        runs += others.values()
    return runs


def is_whole(checkpoint: Path) -> bool:
    """Whether a file is a checkpoint that is not cut off: its table of contents is at its end."""
    return checkpoint.is_file() and zipfile.is_zipfile(checkpoint)


def is_in_use(folder: Path) -> bool:
    """Whether the command line of any process names a folder (on Linux; elsewhere False).

    That is how a training is recognized that somebody started by hand, which takes no lock.
    """
    wanted = os.path.realpath(folder)
    for process in Path('/proc').glob('[0-9]*'):
        try:
            place = os.readlink(process / 'cwd')
            words = os.fsdecode((process / 'cmdline').read_bytes()).split('\0')
        except OSError:  # it has ended, or is somebody else's
            continue
        similar = [word for word in words if word.rstrip('/').endswith(folder.name)]
        if any(os.path.realpath(os.path.join(place, word)) == wanted for word in similar):
            return True
    return False


@lru_cache(maxsize=None)
def _load(relative: str) -> Config:
    return Config.fromfile(config_path(relative))


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.stem.split('_')[1])


def _essentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _essentials(item) for key, item in value.items() if key not in _PATHS}
    if isinstance(value, (list, tuple)):
        return [_essentials(item) for item in value if item not in _FASTER]
    return value


def _text(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if isinstance(value, (list, tuple)):
        return f'[{",".join(map(_text, value))}]'
    return str(value)


def _versions() -> dict[str, str]:
    names = ('mmaqd', 'torch', 'mmcv', 'mmengine', 'mmdet', 'numpy')
    return dict(
        python=platform.python_version(),
        **{name: import_module(name).__version__
           for name in names})


def _machine() -> str:
    """The processor and, if there are any, the GPUs, by name."""
    lines = Path('/proc/cpuinfo').read_text().splitlines() if sys.platform == 'linux' else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ', '.join([*(names or [platform.machine()])[:1], *gpus[:1]])
