"""The commands that documents print: what bash makes of them, and how tests parse or run them."""
from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mmaqd.invocation import SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)
# What documents may call. Each becomes a function that prints its arguments, so nothing is run.
KNOWN = ('bash', 'cd', 'cp', 'ln', 'make', 'mim', 'mmaqd', 'pip', 'pre-commit', 'python')
_STUBS = '\n'.join(rf'{name}() {{ printf "%s\x1f" {name} "$@"; printf "\x1e"; }}' for name in KNOWN)


class Parsed(Exception):
    """A command line was parsed without an error."""


def commands_of(text: str) -> list[list[str]]:
    """The words of each command in the ``bash`` blocks of a document, variables replaced.

    Raises:
        AssertionError: bash can't read a block, or it calls something that is not in ``KNOWN``.
    """
    blocks = [block for language, block in BLOCK.findall(text) if language == 'bash']
    script = '\n'.join(blocks).replace('.venv/bin/', '')
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(['/bin/bash', '-c', f'{_STUBS}\nPATH=\n{script}'],
                              capture_output=True,
                              text=True,
                              cwd=empty)
    assert not done.stderr, done.stderr
    return [_as_script(call.split('\x1f')[:-1]) for call in done.stdout.split('\x1e')[:-1]]


def _as_script(words: list[str]) -> list[str]:
    """The script that does what a command ``mmaqd NAME ...`` does."""
    if words[0] != 'mmaqd':
        return words
    assert words[1] in SCRIPTS, f'mmaqd has no command {words[1]!r}'
    return ['python', f'tools/{SCRIPTS[words[1]]}', *words[2:]]


def script_of(words: list[str]) -> Path | None:
    """The script of ours that a command calls; None for other commands."""
    if words[0] != 'python' or not words[1].endswith('.py'):
        return None
    # In another folder it is a copy of the script of this name.
    path = ROOT / words[1] if '/' in words[1] else next((ROOT / 'tools').rglob(words[1]))
    assert path.is_file(), f'{words[1]} does not exist'
    return path


def run_tool(monkeypatch: Any, words: list[str]) -> None:
    """Run a command that calls a script of ours, in this process.

    Raises:
        AssertionError: It calls none, or the script ended with an error status.
    """
    script = script_of(words)
    assert script is not None, f'{words} calls no script of tools/'
    monkeypatch.setattr(sys, 'argv', [str(script), *words[2:]])
    monkeypatch.syspath_prepend(str(script.parent))
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        assert stop.code in (None, 0), f'{words} ended with {stop.code}'


def parse_tool(monkeypatch: Any, words: list[str]) -> None:
    """Let the parser of a script of ours read a command, and stop there.

    Raises:
        AssertionError: It has another opinion of the command.
    """
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments: Any, **named: Any) -> None:
        parse(*arguments, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
    try:
        run_tool(monkeypatch, words)
    except Parsed:
        return
    raise AssertionError(f'{words[1]} has no command line')
