"""The commands that documents print, and how tests run or parse them."""
from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r'^```bash\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)


def commands_of(text: str) -> list[str]:
    """The commands in the ``bash`` blocks of a document, joined lines and no comments."""
    lines = '\n'.join(_BLOCK.findall(text)).replace('\\\n', ' ').splitlines()
    commands = [_without_comment(line) for line in lines]
    return [each for each in commands if each]


def _without_comment(line: str) -> str:
    return re.split(r'(?:^|\s)#', line)[0].strip()


def tool_of(command: str) -> tuple[Path, list[str]] | None:
    """The script of ours that a command calls, and its arguments; None for other commands."""
    words = [word for word in shlex.split(command)]
    if len(words) < 2 or words[0] != 'python' or not words[1].startswith('tools/'):
        return None
    return ROOT / words[1], words[2:]


def run_tool(monkeypatch: Any, command: str) -> None:
    """Run a command that calls a script of ours, in this process.

    Raises:
        AssertionError: The script ended with an error status.
    """
    found = tool_of(command)
    assert found is not None, f'{command} calls no script of tools/'
    script, arguments = found
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    monkeypatch.syspath_prepend(str(script.parent))
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        assert stop.code in (None, 0), f'{command} ended with {stop.code}'
