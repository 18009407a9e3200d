"""Runs our own command line tools as a user would, showing the command and the gist of its log."""
from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import IO, Callable, Sequence

_ROOT = Path(__file__).resolve().parents[1] / '.mim'
_TAIL_LINES = 40
# What is worth a line of the console: progress, figures, and where the training went on.
_GIST = re.compile(
    r'- INFO - (Epoch\(.*|Initialized \d+ .*|resumed epoch.*|Load checkpoint from.*|Wrote .*)')


class ToolError(RuntimeError):
    """A tool ended with an error; the message holds the end of its output."""


def tool_path(name: str) -> Path:
    """Path of one of our tools, in a checkout as well as in an installed package.

    Args:
        name: File name, such as ``'train.py'``.
    """
    return (_ROOT / 'tools' / name).resolve()


def shown_path(path: str | Path) -> str:
    """The path relative to the current folder when it lies below it, by name or by a link."""
    here = Path.cwd()
    for absolute in (Path(os.path.abspath(path)), Path(path).resolve()):
        if absolute.is_relative_to(here):
            return str(absolute.relative_to(here))
    return str(absolute)


def run_tool(name: str,
             arguments: Sequence[str],
             environment: dict[str, str] | None = None,
             report: Callable[[str], None] = print) -> None:
    """Run one of our tools in a process of its own.

    Args:
        name: File name of the tool, such as ``'train.py'``.
        arguments: Its command line.
        environment: Variables to set besides those that are set.
        report: Takes the command and the lines of the log that tell of
            progress.

    Raises:
        ToolError: If the tool fails.
    """
    report(f'$ {command_line(name, arguments, environment)}')
    process = start_tool(name, arguments, environment, subprocess.PIPE)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        for line in process.stdout:
            tail.append(line)
            gist = _GIST.search(line)
            if gist:
                report(f'    {gist.group(1)}')
        code = process.wait()
    except BaseException:
        # Ctrl-C above all: the tool must not train on beside the call that goes on with its work.
        process.terminate()
        process.wait()
        raise
    if code:
        raise ToolError(f'{name} ended with exit code {code}. The end of its output:\n' +
                        ''.join(tail))


def command_line(name: str,
                 arguments: Sequence[str],
                 environment: dict[str, str] | None = None) -> str:
    """What a person would type to run one of our tools. The arguments are :func:`run_tool`'s."""
    settings = ''.join(f'{key}={shlex.quote(value)} ' for key, value in (environment or {}).items())
    return f'{settings}python {shlex.join([shown_path(tool_path(name)), *arguments])}'


def start_tool(name: str, arguments: Sequence[str], environment: dict[str, str] | None,
               output: int | IO[str]) -> subprocess.Popen:
    """Start one of our tools in a process of its own, which ends when this process is killed.

    Args:
        name: File name of the tool, such as ``'train.py'``.
        arguments: Its command line.
        environment: Variables to set besides those that are set.
        output: Where its output goes, as ``stdout`` of :class:`subprocess.Popen`.

    Returns:
        The process.
    """
    return subprocess.Popen([sys.executable, str(tool_path(name)), *arguments],
                            env={
                                **os.environ,
                                **(environment or {}), 'PYTHONUNBUFFERED': '1'
                            },
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            text=True,
                            errors='replace',
                            preexec_fn=_die_with_parent if sys.platform == 'linux' else None)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, so that no second one meets it."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
