"""A checkpoint file becomes a dict: safe by an allow-list, and clear about what it can't read."""
from __future__ import annotations

import os
import os.path as osp
import pickle
import re
import threading
from typing import Any, Callable

import torch

from .allow_list import ALLOWED_GLOBALS, RestrictedPickle
from .archive import fault_of_file
from .contents import safe_content
from .errors import REPLACE, CheckpointError
from .packed import read_packed_file

MapLocation = str | Callable | torch.device | None

# Since this version an allow-list can map the name in a file to a function of ours.
_HAS_NAMED_SAFE_GLOBALS = tuple(int(n) for n in torch.__version__.split('.')[:2]) >= (2, 7)
# torch's list of safe globals is one for the process: a thread must not empty it for another.
_READING = threading.Lock()


def read_checkpoint(path: str, map_location: MapLocation = None) -> dict:
    """Read a checkpoint file without running anything that it holds; the one way in.

    How it is read follows from the extension (``READERS``); a file of any other extension is one
    of ``torch.save``. What it holds is checked and made safe by :func:`safe_content`.

    Args:
        path: Path of the file; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        What was saved: a dict of weights, or one with a ``state_dict``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, cut off, damaged, not a checkpoint, or holds an object
            that is not on the allow-list. The message names the file and says what to do.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise FileNotFoundError(_missing(path))
    reader = READERS.get(osp.splitext(path)[1].lower(), read_torch_file)
    return safe_content(reader(path, map_location), path)


def read_torch_file(path: str, map_location: MapLocation = None) -> Any:
    """Read a file of ``torch.save``, whole and safe, or raise a :class:`CheckpointError`.

    torch >= 2.7 reads it with ``weights_only=True`` and the allow-list of this package, which holds
    for this call only. Older versions of torch can't do that: there the file is read by an
    unpickler that admits the same allow-list and torch's own tensor types.
    """
    try:
        fault = fault_of_file(path)
    except OSError as error:
        raise CheckpointError(f'Checkpoint {path!r} can\'t be read ({error.strerror}): {REPLACE}'
                              ) from error  # yapf: disable
    if fault:
        raise CheckpointError(f'Checkpoint {path!r} ({osp.getsize(path)} bytes) is {fault}: '
                              f'{REPLACE}')
    try:
        return _load(path, map_location)
    except MemoryError:
        raise
    except Exception as error:  # what is wrong inside shows in many ways, an IndexError among them
        if _is_fault_of_the_machine(path, map_location, error):
            raise
        message = _refusal(path, error)
    raise CheckpointError(message)  # outside: torch's advice is not to be seen as its cause


#: Reader of each file extension besides those of ``torch.save``: path and map_location to content.
READERS: dict[str, Callable[[str, MapLocation], Any]] = {'.safetensors': read_packed_file}


def _load(path: str, map_location: MapLocation) -> Any:
    """Read the file by the safest means that this torch has."""
    if _HAS_NAMED_SAFE_GLOBALS:
        named = [(value, name) for name, value in ALLOWED_GLOBALS.items()]
        with _READING, torch.serialization.safe_globals(named):
            return torch.load(path, map_location=map_location, weights_only=True)
    return torch.load(
        path, map_location=map_location, weights_only=False, pickle_module=RestrictedPickle)


def _is_fault_of_the_machine(path: str, map_location: MapLocation, error: Exception) -> bool:
    """Whether the file itself is fine, and only its device is not there, say."""
    if isinstance(error, pickle.UnpicklingError) or map_location == 'cpu':
        return False
    try:
        _load(path, 'cpu')
    except Exception:  # whatever it is, it is the file
        return False
    return True


def _refusal(path: str, error: Exception) -> str:
    """Why a file with the right checksums was not loaded."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and ('lobal' in text or 'Can only' in text
                                                      or 'reduce' in text):
        found = re.search(r'GLOBAL (\S+)|Unsupported global: (.*)', text)
        name = next(filter(None, found.groups())) if found else 'an object of another kind'
        return (f'Checkpoint {path!r} was not loaded, since it holds more than weights and '
                f'training state: {name.rstrip(".")}. Ask who made it for a file with the weights '
                'only, as torch.save(model.state_dict(), "weights.pth") writes it, or keep its '
                'weights only where it was made.')
    return (f'Checkpoint {path!r} ({osp.getsize(path)} bytes) is damaged or cut off '
            f'({type(error).__name__} while it was read): {REPLACE}')


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
