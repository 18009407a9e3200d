"""Every file of code stays short enough to be read in one go, and types are written in one way."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for folder in ('mmaqd', 'tools', 'tests', 'configs') for path in (ROOT / folder).rglob('*')
    if path.suffix in ('.py', '.sh') and '.mim' not in path.parts)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_types_are_written_with_bars_and_not_in_docstrings():
    wrong = []
    for path in FILES:
        if path.suffix != '.py' or 'compat' in path.parts or path.name == 'operators.py':
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                if node.value.id in ('Optional', 'Union', 'List', 'Tuple', 'Dict'):
                    wrong.append(f'{path.relative_to(ROOT)}:{node.lineno}')
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                sections = (ast.get_docstring(node) or '').partition('\nArgs:\n')[2].split('\n\n')
                if re.search(r'^ {4}\w+ \([^)]*\): ', sections[0], re.MULTILINE):
                    wrong.append(f'{path.relative_to(ROOT)}:{node.lineno}')
    assert not wrong
