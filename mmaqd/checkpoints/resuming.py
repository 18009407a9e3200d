"""Going on from a checkpoint: which one, and what MMEngine must not take from it."""
from __future__ import annotations

import os
import os.path as osp
import re
from functools import wraps
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner

from .archive import fault_of_file
from .errors import CheckpointError, CheckpointMismatchError
from .training_state import ResumeCheck

_NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
_WARNING = 30
# What MMEngine raises where a part of a checkpoint is not what it wrote.
_RAW = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)


def last_whole_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that a run in ``work_dir`` goes on from.

    It is the one that MMEngine's file ``last_checkpoint`` names. Where that is half written, or the
    file is missing, empty, or names a folder that was moved, it is the last whole one of
    ``epoch_*.pth`` or ``iter_*.pth``, and a warning says so.

    Args:
        work_dir: Folder that the run writes to.

    Returns:
        Its path; None if there is no checkpoint yet.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole.
    """
    named = _named(work_dir)
    faults = []
    for path in _candidates(work_dir, named):
        fault = _fault(path)
        if fault is None:
            if faults or named != path:
                print_log(
                    f'Resuming from {path}, the last whole checkpoint: '
                    f'{"; ".join(faults) or _why_not(named, work_dir)}.', 'current', _WARNING)
            return path
        faults.append(f'{path} is {fault}')
    if not faults:
        return None
    raise CheckpointError(f'No checkpoint in {work_dir} is whole, so training can\'t be resumed: '
                          f'{"; ".join(faults)}. Start anew without --resume, or name a checkpoint '
                          'that is elsewhere.')


def _named(work_dir: str) -> str | None:
    """What ``last_checkpoint`` says; None without that file."""
    try:
        with open(osp.join(work_dir, 'last_checkpoint'), encoding='utf-8', errors='replace') as f:
            return f.read().strip()
    except OSError:
        return None


def _candidates(work_dir: str, named: str | None) -> list[str]:
    """Paths that may be resumed from, the best one first."""
    found = []
    if named:
        found = [named, osp.join(work_dir, osp.basename(named))]
    folders = dict.fromkeys([work_dir, osp.dirname(named) if named else work_dir])
    numbered = [
        osp.join(folder, name) for folder in folders if osp.isdir(folder)
        for name in os.listdir(folder) if _NUMBERED.fullmatch(name)
    ]
    numbered.sort(key=lambda path: -int(_NUMBERED.fullmatch(osp.basename(path)).group(1)))
    unique: dict[str, str] = {}
    for path in found + numbered:
        if osp.exists(path):
            unique.setdefault(osp.realpath(path), path)
    return list(unique.values())


def _fault(path: str) -> str | None:
    if osp.isdir(path):  # deepspeed writes folders
        return None
    try:
        return fault_of_file(path)
    except OSError as error:
        return f'not readable ({error.strerror})'


def _why_not(named: str | None, work_dir: str) -> str:
    if named is None:
        return f'{work_dir} has no file last_checkpoint'
    return f'last_checkpoint names {named!r}, which is not there'


def guard_resume(runner_class: type) -> None:
    """Let ``resume`` of a runner of MMEngine check what it goes on from, for the process.

    Where the runner itself looks for the checkpoint (``resume=True`` without ``load_from``), it is
    that of :func:`last_whole_checkpoint`.
    """
    original = runner_class.resume
    if getattr(original, 'is_guarded', False):
        return

    @wraps(original)
    def resume(self: Runner, filename: str, *args: Any, **kwargs: Any) -> None:
        if self._load_from is None:
            filename = last_whole_checkpoint(self.work_dir) or filename
        check = ResumeCheck(filename)
        self._hooks.insert(0, check)
        try:
            original(self, filename, *args, **kwargs)
        except CheckpointMismatchError:
            raise
        except _RAW as error:
            raise CheckpointError(
                f'Training can\'t go on from the checkpoint {filename!r}: a part of it is not what '
                f'MMEngine writes there ({type(error).__name__}: {error}). Name another '
                'checkpoint, or give it as load_from, without --resume.') from error
        finally:
            self._hooks.remove(check)

    resume.is_guarded = True
    runner_class.resume = resume


guard_resume(Runner)
guard_resume(FlexibleRunner)
