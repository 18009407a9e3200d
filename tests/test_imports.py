"""Imports inside the package go down only, from a layer to those below it."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmaqd'
# From the bottom up. Parts of one layer don't know each other, except at the very bottom.
LAYERS = [{'version', 'paths', 'invocation', 'compat', 'registry'}, {'functional'}, {'quantizers'},
          {'layers'}, {'checkpoints'}, {'models', 'datasets'}, {'engine'}, {'analysis'},
          {'conversion'}, {'export'}, {'demo'}, {'cli'}, {'__main__'}]
# These see everything: the package itself, and the module that MMEngine asks for.
FACADES = {'__init__', 'api', 'utils'}
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
FILES = [path for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts]


def part_of(path: Path) -> str:
    """The subpackage or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imported_parts(path: Path) -> set[str]:
    """The parts of mmaqd that a file imports anywhere in it, relative imports resolved."""
    package = ['mmaqd', *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *([node.module] if node.module else [])])
            names.update(f'{module}.{alias.name}' for alias in node.names)
    return {name.split('.')[1] for name in names if name.startswith('mmaqd.')}


def test_every_part_has_a_layer():
    assert {part_of(path) for path in FILES} <= {*HEIGHT, *FACADES}


@pytest.mark.parametrize(
    'path', [path for path in FILES if part_of(path) not in FACADES],
    ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down_only(path):
    own = part_of(path)
    others = imported_parts(path) - {own}
    wrong = {part for part in others if HEIGHT.get(part, len(LAYERS)) >= max(HEIGHT[own], 1)}
    assert not wrong, f'{path.name} in mmaqd/{own} imports what is not below it: {sorted(wrong)}'


@pytest.mark.parametrize(
    'path', sorted((PACKAGE / 'functional').glob('*.py')), ids=lambda p: p.name)
def test_numerics_know_torch_only(path):
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module)
    assert not [name for name in names if name.startswith('mm') and not name.startswith('mmaqd')]


def test_a_folder_is_imported_from_by_a_dot_in_it_and_by_name_elsewhere():
    wrong = []
    for path in (path for path in FILES if part_of(path) != 'compat'):
        folder = '.'.join(['mmaqd', *path.relative_to(PACKAGE).parent.parts])
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                own = not node.level and node.module.rpartition('.')[0] == folder != 'mmaqd'
                if own or node.level > 1:
                    wrong.append(f'{path.relative_to(PACKAGE)}:{node.lineno}')
    assert not wrong
