"""What the accuracy study runs: a row of accuracy_rows.yml with a seed, in a folder of its own."""
from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from string import Formatter
from typing import Any, Mapping

import torch
import yaml
from accuracy_statistics import resample

from mmaqd.demo.commands import command_line, shown_path
from mmaqd.demo.stages import write_json

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(__file__).with_name('accuracy_rows.yml')
DATA = os.environ.get('MMAQD_BCCD', 'data/bccd/')
#: What is trained on and what is evaluated on: the name of its annotations.
SPLITS = dict(test=('trainval', 'test'), val=('train', 'val'))
METRICS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR_s@1000', 'AR_m@1000',
           'AR_l@1000')


class ChangedRowError(ValueError):
    """What is there of a run was made by another command."""


@dataclass(frozen=True)
class Row:
    """One model of the study; ``accuracy_rows.yml`` says what its fields are."""

    name: str
    config: str
    seeds: tuple[int, ...]
    start: str | None = None
    twin: str | None = None
    teacher: str | None = None
    calibrate: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def needs(self) -> dict[str, str]:
        """Names of the rows whose checkpoints it uses, by what stands for them in overrides."""
        texts = [value for value in self.overrides.values() if isinstance(value, str)]
        named = {name for text in texts for _, name, _, _ in Formatter().parse(text)} | {'start'}
        return {
            role: getattr(self, role)
            for role in ('start', 'twin', 'teacher') if role in named and getattr(self, role)
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What a record keeps of it, by which it is known again."""
        return dict(config=self.config, overrides=dict(self.overrides), needs=self.needs)


def read_rows(path: Path = ROWS) -> dict[str, Row]:
    """The rows of a table, by name."""
    return {
        name:
        Row(
            name, **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in fields.items()
            })
        for name, fields in yaml.safe_load(path.read_text())['rows'].items()
    }


class Run:
    """A row with a seed, below the folder ``out``.

    ``needs`` are runs of the same seed by what stands for them in the row's overrides.
    """

    def __init__(self, row: Row, seed: int, out: Path, split: str, needs: dict[str, Run]) -> None:
        self.row, self.seed, self.split, self.needs = row, seed, split, needs
        self.folder = out / row.name / f'seed_{seed}'
        self.log = self.folder / 'study.log'
        self.steps = ('train' if row.calibrate is None else 'calibrate', 'test')

    def __str__(self) -> str:
        return f'{self.row.name}, seed {self.seed}'

    @property
    def checkpoint(self) -> str:
        """The checkpoint that it has ended with."""
        last = self.folder / 'last_checkpoint'
        return shown_path(last.read_text() if last.is_file() else self.folder / 'calibrated.pth')

    @property
    def is_trained(self) -> bool:
        """Whether others can start from it or learn from it."""
        return self._noted().get(self.steps[0], {}).get('done', False)

    def next_step(self) -> str | None:
        """``'train'`` or ``'calibrate'``, ``'test'``, or None when there is nothing left to do.

        Raises:
            ChangedRowError: A step was begun with another command than the row has now.
        """
        for step in self.steps:
            noted, command = self._noted().get(step), self.command(step)
            if noted and noted['command'] != command:
                raise ChangedRowError(f'{self.folder} was made by another command:\n'
                                      f'    {noted["command"]}\nexpected\n    {command}\n'
                                      'Move or remove the folder, or give the row another name.')
            if not noted or not noted['done']:
                return step
        return None

    def command(self, step: str) -> str:
        """What a person would type."""
        return command_line(f'{step}.py', self.arguments(step))

    def arguments(self, step: str) -> list[str]:
        """Arguments of ``tools/{step}.py``."""
        config, folder = shown_path(ROOT / 'configs' / self.row.config), shown_path(self.folder)
        options = self._options(step)
        if step == 'train':
            places = [config, '--work-dir', folder, '--resume']
        elif step == 'calibrate':
            places = [config, self.needs['start'].checkpoint, '--out', f'{folder}/calibrated.pth']
            places += self.row.calibrate
        else:
            places = [config, self.checkpoint, '--work-dir', f'{folder}/test']
        return [*places, '--cfg-options', *(f'{key}={_text(options[key])}' for key in options)]

    def begin(self, step: str) -> None:
        """Note that a step begins."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if step == 'test':
            shutil.rmtree(self.folder / 'test', ignore_errors=True)
            (self.folder / 'test').mkdir()
        self._note(step, done=False)

    def end(self, step: str) -> None:
        """Note that a step ended well."""
        self._note(step, done=True)

    def result(self) -> dict[str, Any]:
        """What the record keeps of it, when it is tested."""
        log = next((self.folder / 'test').glob('*/*.json'))
        # A model that detects nothing at all has no metrics in the log.
        metrics = {f'bbox_{name}': 0.0 for name in METRICS}
        metrics.update((key.split('/')[-1], value)
                       for key, value in json.loads(log.read_text()).items()
                       if key not in ('time', 'data_time'))
        detections = json.loads((self.folder / 'test' / 'detections.bbox.json').read_text())
        return dict(
            row=self.row.name,
            seed=self.seed,
            split=self.split,
            metrics=metrics,
            resampled=resample(self._annotations, detections),
            commands=[self.command(step) for step in self.steps],
            versions=_versions(),
            machine=_machine())

    @property
    def _annotations(self) -> str:
        return f'{DATA}annotations/{SPLITS[self.split][1]}.json'

    def _options(self, step: str) -> dict[str, Any]:
        checkpoints = {role: run.checkpoint for role, run in self.needs.items()}
        options = {
            key: value.format(**checkpoints) if isinstance(value, str) else value
            for key, value in self.row.overrides.items()
        }
        if self.split != 'test':
            train, test = (f'annotations/{name}.json' for name in SPLITS[self.split])
            options.update({
                'train_dataloader.dataset.ann_file': train,
                'test_dataloader.dataset.ann_file': test,
                'test_evaluator.ann_file': self._annotations
            })
        if step == 'test':
            detections = shown_path(self.folder / 'test' / 'detections')
            evaluator = dict(metric_items=METRICS, classwise=True, outfile_prefix=detections)
            return {**options, **{f'test_evaluator.{key}': evaluator[key] for key in evaluator}}
        options['randomness.seed'] = self.seed
        if step == 'train' and 'start' in checkpoints:
            options['load_from'] = checkpoints['start']
        return options

    def _noted(self) -> dict[str, dict[str, Any]]:
        path = self.folder / 'steps.json'
        return json.loads(path.read_text()) if path.is_file() else {}

    def _note(self, step: str, done: bool) -> None:
        entry = dict(command=self.command(step), done=done)
        write_json(self.folder / 'steps.json', {**self._noted(), step: entry})


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
    """The processor and, if there are any, the GPU, by name."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    gpus = [torch.cuda.get_device_name(0)] if torch.cuda.is_available() else []
    return ', '.join([*(names or [platform.machine()])[:1], *gpus])
