"""The command mmaqd: what it says at once, without torch, and that its scripts are the same."""
from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mmaqd.cli import report
from mmaqd.cli.commands import TABLE, main
from mmaqd.engine import launch
from mmaqd.invocation import SCRIPTS
from mmaqd.version import __version__
from tests.helpers.engines import need
from tests.helpers.exported import exported_file, recipe

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {**TABLE.commands, **{f'report {k}': v for k, v in report.TABLE.commands.items()}}


@pytest.fixture(scope='module')
def script(tmp_path_factory) -> Path:
    """The script that pip writes, in a place where importing torch or MMDetection fails."""
    folder = tmp_path_factory.mktemp('bin')
    for name in ('torch', 'mmcv', 'mmdet'):
        (folder / f'{name}.py').write_text(f'raise ImportError("{name} is blocked")')
    (folder / 'mmaqd').write_text('import sys\nfrom mmaqd.cli.commands import main\n'
                                  'if __name__ == "__main__":\n    sys.exit(main())\n')
    return folder / 'mmaqd'


def run(script: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Without torch: Python puts the folder of a script in front of its path."""
    return subprocess.run([sys.executable, *map(str, (script, *arguments))],
                          env=dict(os.environ, PYTHONPATH=str(ROOT)),
                          capture_output=True,
                          text=True,
                          timeout=60)


def test_help_has_a_sentence_for_every_command(script):
    done = run(script, '--help')
    assert (done.returncode, done.stderr) == (0, '')
    for name, command in TABLE.commands.items():
        line, = (each for each in done.stdout.splitlines() if each.startswith(f'  {name} '))
        assert line.endswith(f'  {command.summary}') and command.summary.endswith('.')
    assert all(f'{title}:' in done.stdout for title in TABLE.groups)
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert run(script).stdout == done.stdout


def test_a_missing_package_is_named_with_how_to_get_it(script, tmp_path):
    (tmp_path / 'mmengine.py').write_text('raise ModuleNotFoundError(name="mmengine")')
    (tmp_path / 'mmaqd').write_text(script.read_text())
    done = run(tmp_path / 'mmaqd', 'train', 'config.py')
    assert done.returncode == 1 and done.stdout == ''
    assert re.match('mmaqd train: mmaqd needs mmengine.*pip install', done.stderr)
    assert 'Traceback' not in done.stderr


def test_python_m_is_the_same(script):
    done = subprocess.run([sys.executable, '-m', 'mmaqd', '--help'],
                          env=dict(os.environ, PYTHONPATH=f'{script.parent}{os.pathsep}{ROOT}'),
                          capture_output=True,
                          text=True)
    assert (done.stdout, done.stderr) == (run(script, '--help').stdout, '')


@pytest.mark.parametrize('name', COMMANDS)
def test_each_command_has_its_own_help_without_torch(script, name):
    done = run(script, *name.split(), '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: mmaqd {name} ')


def test_detect_needs_no_torch(script, tmp_path):
    need('onnx', 'onnxruntime')
    rows = [[8, 16, 24, 40, .75], [0, 0, 64, 48, .5], [50, 40, 64, 48, .4]]
    stored = dict(dets=rows, labels=[1, 0, 1])
    file = exported_file(tmp_path / 'a.onnx', recipe(self_test=stored))
    done = run(script, 'detect', file, '--self-test', '--threads', 1)
    assert done.stdout == 'Self-test passed in onnxruntime: 3 detections as exported.\n'
    assert run(script, 'detect', tmp_path / 'no.onnx', '--self-test').returncode == 2


def test_what_is_missing_is_said_in_a_line(script):
    done = run(script, 'train', 'c.py')
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == 'mmaqd: torch is blocked\n'


def test_the_version(script):
    assert run(script, '--version').stdout == f'mmaqd {__version__}\n'


@pytest.mark.parametrize('arguments, words', [
    (['trian'],
     "mmaqd: there is no command 'trian'. Did you mean 'train'? There are: quantize-config, train"),
    (['xyz'], "mmaqd: there is no command 'xyz'. There are: quantize-config, train"),
    (['report', 'sizes'], "mmaqd report: there is no command 'sizes'. Did you mean 'size'?"),
])
def test_a_wrong_command_says_what_there_is(capsys, arguments, words):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.startswith(words) and said.err.count('\n') == 1


@pytest.mark.parametrize('name', COMMANDS)
def test_every_row_of_the_tables_leads_somewhere(name):
    module, _, function = COMMANDS[name].place.partition(':')
    parameters = inspect.signature(getattr(import_module(module), function or 'main')).parameters
    assert list(parameters) == ['argv', 'prog']


@pytest.mark.parametrize('name', SCRIPTS)
def test_every_script_calls_its_command(name):
    path, module = ROOT / 'tools' / SCRIPTS[name], name.replace('-', '_')
    if path.is_symlink():
        assert path.resolve() == ROOT / 'mmaqd' / 'cli' / f'{module}.py'
    else:
        assert f'from mmaqd.cli.{module} import main' in path.read_text()
        assert path.read_text().startswith(f'"""``mmaqd {name}``')


def test_options_reach_the_library(monkeypatch):
    given: dict = {}
    monkeypatch.setattr(launch, 'train', lambda **arguments: given.update(arguments))
    monkeypatch.setenv('LOCAL_RANK', '0')
    assert main(['train', 'c.py', '--resume', '--cfg-options', 'a.b=3']) == 0
    assert (given['config'], given['resume'], given['cfg_options']) == ('c.py', 'auto', {'a.b': 3})


def test_a_report_of_a_config_is_that_of_its_size(monkeypatch):
    given: list = []
    monkeypatch.setattr(report, 'model_size', lambda *arguments: given.append(arguments))
    main(['report', 'c.py', '--out', 'o'])
    main(['report', 'size', 'c.py'])
    assert given == [(['c.py', '--out', 'o'], 'mmaqd report size'), (['c.py'], 'mmaqd report size')]


def test_the_library_is_whole_once_a_command_needs_it():
    code = ("import sys; sys.argv = ['mmaqd']; import mmaqd; assert not hasattr(mmaqd, 'engine');"
            'from mmaqd.cli.command_line import command_line\n'
            'with command_line(): assert all(hasattr(mmaqd, name) for name in mmaqd.api.__all__)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
