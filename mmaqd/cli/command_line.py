"""How a command starts on the library, and ends: by Ctrl-C, by an error in several processes."""
from __future__ import annotations

import os
import signal
import sys
import zlib
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from threading import current_thread, main_thread
from typing import Any, Iterator

from mmaqd.invocation import was_interrupted

INTERRUPTED = 130  # what a shell gives for SIGINT


@contextmanager
def command_line() -> Iterator[None]:
    """Import the library, and let a command end well.

    Ctrl-C ends it with one line, its reason if it has one, instead of a traceback. An error that
    several processes of a launcher have in common is printed by one of them.
    """
    if _num_processes() > 1 and current_thread() is main_thread():
        signal.signal(signal.SIGINT, _interrupt_once)
    try:
        with _errors_said_once():
            load_package()
            yield
    except (Exception, KeyboardInterrupt) as stop:
        if not was_interrupted(stop):
            raise
        reason = str(stop) if isinstance(stop, KeyboardInterrupt) else ''
        if os.environ.get('RANK', '0') == '0':
            print(f'\n{reason or "Stopped."}', file=sys.stderr)
        sys.exit(INTERRUPTED)


def load_package() -> None:
    """Make ``import mmaqd`` complete, which the command ``mmaqd`` has put off."""
    try:
        public = import_module('mmaqd.api')
    except ImportError as error:  # it says what is missing and how to install it
        sys.exit(f'mmaqd: {error}')
    vars(import_module('mmaqd')).update({name: getattr(public, name) for name in public.__all__})


def _num_processes() -> int:
    return int(os.environ.get('WORLD_SIZE', 1))


def _interrupt_once(*_: Any) -> None:
    """Take Ctrl-C; a launcher sends it a second time, which would spoil the last words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _errors_said_once() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not was_interrupted(error) and not _is_first_to_say(f'{type(error).__name__}: {error}'):
            sys.exit(1)
        raise


def _is_first_to_say(message: str) -> bool:
    """Whether no other process that torchrun started has come with this message."""
    if _num_processes() == 1 or 'MASTER_PORT' not in os.environ:
        return True
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    key = f'mmaqd/error/{attempt}/{zlib.crc32(message.encode())}'
    try:
        from torch.distributed import TCPStore  # which not every build of torch has
        store = TCPStore(
            os.environ['MASTER_ADDR'],
            int(os.environ['MASTER_PORT']),
            is_master=False,
            timeout=timedelta(seconds=5))
        return store.add(key, 1) == 1
    except Exception:  # no store: rather twice than never
        return True
