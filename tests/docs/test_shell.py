"""Every command of the documents runs in a small world, or says what it needs, or installs."""
from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from tests.helpers.commands import ROOT, Command, marked_commands_of
from tests.helpers.engines import need
from tests.helpers.small_world import SmallWorld

# What is not run although nothing marks it.
BY_KIND = {
    'pip': 'installs',
    'mim': 'installs, or calls a script that pip installs',
    'make': 'installs into an environment of its own first; CI runs test, lint and docs',
    'pre-commit': 'changes the checkout',
}
# Pages that a test of their own runs from the first to the last command.
ELSEWHERE = {'docs/own_data.md': 'tests/test_own_data.py'}


def is_run(command: Command) -> bool:
    tests = command.words[:3] == ['python', '-m', 'pytest']
    return not (command.needs or command.words[0] in BY_KIND or tests)


COMMANDS = {
    path.relative_to(ROOT).as_posix(): marked_commands_of(path.read_text())
    for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/**/*.md')),
                 *sorted(ROOT.glob('configs/**/*.md')))
}
RUN = {
    page: [command.words for command in commands if is_run(command)]
    for page, commands in COMMANDS.items()
}
PAGES = [page for page, commands in RUN.items() if commands and page not in ELSEWHERE]

FIRST = ('python tools/train.py FLOAT_CONFIG', 'python tools/train.py CONFIG',
         'python tools/deployment/export.py CONFIG CHECKPOINT --out model.onnx',
         'python tools/deployment/export.py FLOAT_CONFIG FLOAT_CHECKPOINT --float --out float.onnx')


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Iterator[SmallWorld]:
    """The small world, with both detectors trained and exported."""
    made = SmallWorld(tmp_path_factory.mktemp('world'))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(made.root)
        for command in FIRST:
            made.run(monkeypatch, command.split())
    yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('page', PAGES)
def test_commands_run(page: str, world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    if any(word.startswith('openvino:') for words in RUN[page] for word in words):
        need('openvino')
        world.run(monkeypatch, f'{FIRST[2]} --engine openvino'.replace('model', 'openvino').split())
    for words in RUN[page]:
        world.run(monkeypatch, words)


@pytest.mark.parametrize('page, test', ELSEWHERE.items())
def test_pages_with_a_test_of_their_own(page: str, test: str) -> None:
    code = (ROOT / test).read_text()
    assert Path(page).name in code and 'commands_of(PAGE)' in code
    assert RUN[page] == [command.words for command in COMMANDS[page]]


def test_a_command_that_needs_nothing_is_run() -> None:
    text = ('```bash\nmake x\npython a.py \\\n  b  # the float twin; needs COCO\npython c.py\n'
            '# needs BCCD, forty minutes\nX=1\nfor i in 1 2; do\n  python d.py $i\ndone\n```\n'
            '```bash\npython e.py  # needs onnxruntime\n```\n')
    found = marked_commands_of(text)
    assert [each.needs for each in found] == ['', 'COCO', '', *2 * ['BCCD, forty minutes'], '']
    assert [each.words[1] for each in found if is_run(each)] == ['c.py', 'e.py']
