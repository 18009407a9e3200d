"""The command line of tools/demo.py."""
import importlib.util
from pathlib import Path

import pytest

from mmaqd.demo import ToolError


@pytest.fixture
def tool(monkeypatch):
    """The tool as a module, with a demo that only notes how it was called."""
    path = Path(__file__).parents[2] / 'tools' / 'demo.py'
    spec = importlib.util.spec_from_file_location('mmaqd_tools_demo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv('MMAQD_SHAPES', raising=False)
    module.calls = []

    class FakeDemo:

        def __init__(self, *arguments):
            module.calls.append(arguments)

        def run(self, fresh):
            module.calls.append(fresh)

    monkeypatch.setattr(module, 'Demo', FakeDemo)
    return module


def call(tool, monkeypatch, *words):
    monkeypatch.setattr('sys.argv', ['demo.py', *words])
    tool.main()
    return tool.calls


def test_defaults(tool, monkeypatch):
    assert call(tool, monkeypatch) == [('work_dirs/demo', 'data/shapes'), False]


def test_options(tool, monkeypatch):
    calls = call(tool, monkeypatch, '--work-dir', 'w', '--data-root', 'd', '--fresh')
    assert calls == [('w', 'd'), True]


def test_data_root_follows_the_variable_of_the_configs(tool, monkeypatch):
    monkeypatch.setenv('MMAQD_SHAPES', 'elsewhere/')
    assert call(tool, monkeypatch)[0] == ('work_dirs/demo', 'elsewhere/')


@pytest.mark.parametrize('error, message', [
    (KeyboardInterrupt(), 'Call it again to go on'),
    (ToolError('train.py ended'), 'train.py ended'),
    (ValueError('holds files'), 'holds files'),
])
def test_ends_with_a_sentence(tool, monkeypatch, error, message):

    def fail(self, fresh):
        raise error

    monkeypatch.setattr(tool.Demo, 'run', fail)
    with pytest.raises(SystemExit, match=message):
        call(tool, monkeypatch)
