"""A small world in which the commands of documents run in seconds: data, models and folders.

The command line is the document's own, but for what only a reader has, and for sizes:

- ``PLACEHOLDERS`` (``CONFIG``, ``IMAGES``, ...) are files of the small world.
- Our configs on COCO and BCCD are a RetinaNet of 8 channels on four images, float or of 4 bits.
- Their runs ``work_dirs/NAME``, and a checkpoint of any epoch, are those of one epoch of that.
- Values of ``SMALLER`` options are smaller; what a tool writes into the checkout goes elsewhere.

Commands that name the packed models in ``configs/bccd/packed`` stay as they are.
"""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2

from tests.helpers.commands import ROOT, run_tool, script_of
from tests.helpers.data import make_own, run_cfg

PLACEHOLDERS = dict(
    CONFIG='small_w4a4.py',
    CHECKPOINT='work_dirs/small_w4a4/epoch_1.pth',
    FLOAT_CONFIG='small_float.py',
    FLOAT_CHECKPOINT='work_dirs/small_float/epoch_1.pth',
    IMAGES='data/bccd/images',
    IMAGE_OR_FOLDER='data/bccd/images',
    H='64',
    W='64',
    ENGINE='onnxruntime',
    FILE='raw.onnx',
    SOMEWHERE='somewhere')
SMALLER = {'--size': '64', '--rounds': '2', '--threads': '1'}
# Options that are added: of the small files' input, and of what would go into the checkout.
ADDED = {
    'benchmark.py': ['--shape', '1', '3', '64', '64'],
    'accuracy_report.py': ['--docs', 'benchmarks'],
    'front_page.py': ['--out', 'plot.png'],
}
CONFIG = re.compile(r'(?:configs/)?(?:retinanet|fcos|atss|bccd)/(?P<name>\w[\w-]*)\.py')
RUN = re.compile(r'work_dirs/(?P<name>[\w-]+)(?P<checkpoint>/epoch_\d+\.pth)?')
LOW_BIT = re.compile(r'w\da\d')
TWINS = ('small_float', 'small_w4a4')
SHARED = ('configs', 'docs', 'mmaqd', 'tools')


class SmallWorld:
    """A folder like the root of the repository, with data and small detectors that were trained.

    Args:
        root: An empty folder, the current one while commands run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.done: set[tuple[str, ...]] = set()
        self.data = make_own(root / 'own', 'coco')
        for name in ('data', 'somewhere'):
            (root / name).mkdir()
        (root / 'data' / 'bccd').symlink_to(self.data)
        for name in SHARED:
            (root / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / 'docs' / 'benchmarks', root / 'benchmarks')
        photo = cv2.imread(str(self.data / 'images' / '0.png'))
        cv2.imwrite(str(root / 'somewhere' / 'photo.jpg'), photo)
        for name in TWINS:
            self._write_config(name)

    def _write_config(self, name: str) -> None:
        low_bit = name == TWINS[1]
        cfg = run_cfg(self.data, self.root, bits=4 if low_bit else None)
        cfg.pop('work_dir')
        if low_bit:
            cfg.load_from = PLACEHOLDERS['FLOAT_CHECKPOINT']
            cfg.custom_hooks.append(dict(type='mmaqd.LogIntervalsHook'))
        cfg.dump(self.root / f'{name}.py')

    def run(self, monkeypatch: Any, words: list[str]) -> None:
        """Run a command, unless it ran already.

        Raises:
            AssertionError: It failed, or nothing here can run it.
        """
        words = self.translated(words)
        if words[0] == 'cd':
            monkeypatch.chdir(words[1])
        elif tuple(words) not in self.done:
            self._run(monkeypatch, words)
            self.done.add(tuple(words))

    def _run(self, monkeypatch: Any, words: list[str]) -> None:
        if words[0] in ('cp', 'ln'):
            if words[0] == 'ln':
                (self.root / words[-1]).unlink()  # what it makes was there
            subprocess.run(words, check=True)
        elif words[0] == 'python' and (words[1] == '-c'
                                       or Path(words[1]).is_file() and '/' not in words[1]):
            subprocess.run([sys.executable, *words[1:]], check=True)
        else:
            assert script_of(words) is not None, f'nothing runs {words}'
            run_tool(monkeypatch, words)

    def translated(self, words: list[str]) -> list[str]:
        """The command with what the small world has in place of what the document names."""
        if any(word.startswith('configs/bccd/packed') for word in words):
            return words
        fixed = 2 if words[0] == 'python' else 1
        found, smaller = words[:fixed], None
        for word in words[fixed:]:
            if word.startswith('--'):
                smaller = SMALLER.get(word)
            found.append(smaller if smaller and word.isdigit() else self._translated_word(word))
        return [*found, *ADDED.get(Path(words[1]).name, ())]

    def _translated_word(self, word: str) -> str:
        key, equals, value = word.rpartition('=')
        if value == '...':
            low_bit = 'openvino.onnx' if key.startswith('openvino') else 'model.onnx'
            value = 'float.onnx' if key.endswith(':float') else low_bit
        elif value.startswith('/path/to/'):
            value = str(self.data)
        elif match := CONFIG.fullmatch(value):
            value = f'{self._twin(match["name"])}.py'
        elif match := RUN.fullmatch(value):
            run = self.root / 'work_dirs' / match['name']
            run = run if run.is_dir() else run.with_name(self._twin(match['name']))
            value = f'work_dirs/{run.name}' + '/epoch_1.pth' * bool(match['checkpoint'])
        return key + equals + PLACEHOLDERS.get(value, value)

    def _twin(self, name: str) -> str:
        """Which of the small detectors stands for one of ours."""
        return TWINS[LOW_BIT.search(name) is not None]
