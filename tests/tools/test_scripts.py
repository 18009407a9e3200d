"""Which mmaqd the scripts run: that of the checkout that they lie in."""
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SCRIPTS = [
    path for path in sorted(TOOLS.rglob('*.py'))
    if 'sys.path.insert' in path.read_text() and path.name != 'demo.py'
]


def test_every_command_has_such_a_script():
    assert len(SCRIPTS) == 14


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_the_code_of_its_checkout(tmp_path, script):
    """The copy runs a package beside it, although another mmaqd is installed or on the path."""
    text = script.read_text()
    module, function = text.split('from mmaqd.cli.')[1].split()[0:3:2]
    place = tmp_path / 'checkout' / 'tools' / script.relative_to(TOOLS)
    package = tmp_path / 'checkout' / 'mmaqd' / 'cli'
    for folder in (place.parent, package):
        folder.mkdir(parents=True)
    (package.parent / '__init__.py').touch()
    (package / '__init__.py').touch()
    (package / f'{module}.py').write_text(f'def {function}(): print("of the checkout")')
    done = subprocess.run([sys.executable, shutil.copy(script, place)],
                          cwd=tmp_path,
                          capture_output=True,
                          text=True)
    assert (done.stdout, done.stderr) == ('of the checkout\n', '')
