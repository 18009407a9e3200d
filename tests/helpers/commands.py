"""The commands that documents print: what bash makes of them, and how tests parse or run them."""
from __future__ import annotations

import argparse
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mmaqd.invocation import SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)
# What documents may call. Each becomes a function that prints its arguments, so nothing is run.
KNOWN = ('bash', 'cd', 'cp', 'ln', 'make', 'mim', 'mmaqd', 'pip', 'pre-commit', 'python')
NEEDS = re.compile(r'#.*\bneeds ((?:COCO|BCCD|\w+ GPUs?|[\w ]+ (?:minutes|hours?))\b.*)')
_STUBS = '\n'.join(rf'{name}() {{ printf "%s\x1f" {name} "$@"; printf "\x1e"; }}'
                   for name in (*KNOWN, 'mark'))


class Parsed(Exception):
    """A command line was parsed without an error."""


class Command(NamedTuple):
    """A command of a document.

    Attributes:
        words: Its words, variables replaced.
        needs: What its mark says that it needs, ``''`` if it has no mark.
    """

    words: list[str]
    needs: str


def marked_commands_of(text: str) -> list[Command]:
    """The commands in the ``bash`` blocks of a document, with their marks.

    A mark is a comment, ``# needs COCO`` or the like (``NEEDS``): behind a command it is of that
    command, in a line of its own of all commands below it in the block.

    Raises:
        AssertionError: bash can't read a block, or it calls something that is not in ``KNOWN``.
    """
    blocks = [block for language, block in BLOCK.findall(text) if language == 'bash']
    script = '\n'.join(map(_with_marks, blocks)).replace('.venv/bin/', '')
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(['/bin/bash', '-c', f'{_STUBS}\nPATH=\n{script}'],
                              capture_output=True,
                              text=True,
                              cwd=empty)
    assert not done.stderr, done.stderr
    found, needs = [], ''
    for call in done.stdout.split('\x1e')[:-1]:
        name, *words = call.split('\x1f')[:-1]
        if name == 'mark':
            needs, = words
        else:
            found.append(Command(_as_script([name, *words]), needs))
    return found


def commands_of(text: str) -> list[list[str]]:
    """The words of each command in the ``bash`` blocks of a document, variables replaced.

    Raises:
        AssertionError: As of :func:`marked_commands_of`.
    """
    return [command.words for command in marked_commands_of(text)]


def _with_marks(block: str) -> str:
    """A block with a call of ``mark`` in front of and behind what is marked."""
    lines, of_block = [], ''
    for line in block.replace('\\\n', ' ').splitlines():
        match = NEEDS.search(line)
        if match and line.lstrip().startswith('#'):
            of_block = match[1]
            lines.append(f'mark {shlex.quote(of_block)}')
        elif match:
            lines += [f'mark {shlex.quote(match[1])}', line, f'mark {shlex.quote(of_block)}']
        else:
            lines.append(line)
    return '\n'.join([*lines, "mark ''"])


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
