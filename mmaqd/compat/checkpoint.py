"""A loader for local checkpoint files: safe by an allow-list, and clear about files it can't read.

MMEngine's checkpoints hold a few objects besides tensors (the histories of logged values, the state
of the schedulers), which ``torch.load`` refuses by default since torch 2.6. Importing this module
registers a loader with MMEngine that admits exactly those, while it reads, and nothing else; so
resuming, ``load_from``, the test tool, ``init_detector`` and ``DetInferencer`` all go through it.
"""

from __future__ import annotations

import os
import os.path as osp
import pickle
import zipfile
from typing import Any, Callable

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmaqd.compat.allow_list import ALLOWED_GLOBALS, RestrictedPickle

# Since this version an allow-list can map the name in a file to a function of ours.
_HAS_NAMED_SAFE_GLOBALS = tuple(int(n) for n in torch.__version__.split('.')[:2]) >= (2, 7)


class CheckpointError(RuntimeError):
    """A file is there, but is not a whole and safe checkpoint."""


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str,
                    map_location: str | Callable | torch.device | None = None) -> Any:
    """Load a local checkpoint file without running any code that it may carry.

    torch >= 2.7 reads it with ``weights_only=True`` and the allow-list of this package, which holds
    for this call only. Older versions of torch can't do that: there the file is read by an
    unpickler that admits the same allow-list and torch's own tensor types.

    Args:
        filename: Path of the file; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        What was saved, usually a dict with a ``state_dict``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, cut off, damaged, not a checkpoint, or holds an object
            that is not on the allow-list.
    """
    path = osp.expanduser(filename)
    if not osp.isfile(path):
        raise FileNotFoundError(_missing(path))
    if osp.getsize(path) == 0:
        raise CheckpointError(f'Checkpoint {path!r} is empty (0 bytes): {_REPLACE}')
    try:
        return _load(path, map_location)
    except Exception as error:  # a damaged file fails in many ways, an IndexError among them
        fault = _diagnose(path, error)
        if fault is None:
            raise
        raise CheckpointError(fault) from error


def _load(path: str, map_location: Any) -> Any:
    """Read the file by the safest means that this torch has."""
    if _HAS_NAMED_SAFE_GLOBALS:
        named = [(value, name) for name, value in ALLOWED_GLOBALS.items()]
        with torch.serialization.safe_globals(named):
            return torch.load(path, map_location=map_location, weights_only=True)
    return torch.load(
        path, map_location=map_location, weights_only=False, pickle_module=RestrictedPickle)


_REPLACE = ('copy or save it again, or name another checkpoint. After an interrupted training '
            '"--resume" goes on from the last complete one.')


def _missing(path: str) -> str:
    """Say where a missing file was looked for, and what is there instead."""
    folder = osp.dirname(osp.abspath(path))
    message = f'Checkpoint {path!r} does not exist (looked for it from {os.getcwd()}).'
    if osp.isdir(path):
        return f'Checkpoint {path!r} is a folder: name a .pth file in it.'
    if not osp.isdir(folder):
        return f'{message} Its folder does not exist either. {_TRAIN_FIRST}'
    others = sorted(name for name in os.listdir(folder) if name.endswith('.pth'))
    return f'{message} The folder has {", ".join(others[:5]) or "no .pth file"}. {_TRAIN_FIRST}'


_TRAIN_FIRST = ('Correct the path (load_from, --resume or the checkpoint argument). A low-bit '
                'config starts from a checkpoint of its float twin: train that one first.')


def _diagnose(path: str, error: Exception) -> str | None:
    """Say what is wrong with a file that could not be loaded; None if the file is all right."""
    size = osp.getsize(path)
    with open(path, 'rb') as file:
        start = file.read(4)
    is_archive = start.startswith(b'PK')
    fault = _fault_of_archive(path) if is_archive else None
    if fault:
        return f'Checkpoint {path!r} ({size} bytes) is {fault}: {_REPLACE}'
    if isinstance(error, pickle.UnpicklingError) and 'lobal' in str(error):
        return _refused(path, error)
    if is_archive:
        return None
    if start.startswith(b'\x80'):  # how pickles start, and with them the files of old torch
        return f'Checkpoint {path!r} ({size} bytes) is damaged or cut off: {_REPLACE}'
    return (f'{path!r} ({size} bytes, starting with {start!r}) is not a checkpoint that torch.save '
            f'wrote: {_REPLACE}')


def _fault_of_archive(path: str) -> str | None:
    """What is wrong with a zip archive, in the words of an error message; None if nothing is."""
    if not zipfile.is_zipfile(path):
        return 'cut off'
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith('data.pkl') for name in archive.namelist()):
            return 'a zip archive, but not a checkpoint that torch.save wrote'
        try:
            return 'damaged' if archive.testzip() else None
        except zipfile.BadZipFile:
            return 'damaged'


def _refused(path: str, error: Exception) -> str:
    """Name the object that is not on the allow-list."""
    return (f'Checkpoint {path!r} was not loaded, since it holds more than weights and training '
            f'state: {str(error).strip()} If you trust who made it, keep its weights only: '
            f'torch.save({{"state_dict": torch.load({path!r}, weights_only=False)["state_dict"]}}, '
            '"weights.pth"), and use that file.')
