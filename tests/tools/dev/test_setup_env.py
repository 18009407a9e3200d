"""What the set-up script says when it can't begin, or when a step fails."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / 'tools' / 'dev' / 'setup_env.sh'


def run_setup(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Set up an environment in a folder."""
    env = {**os.environ, 'STACK': '', 'VENV': str(folder / 'venv'), **variables}
    return subprocess.run(['bash', SCRIPT], env=env, text=True, capture_output=True, timeout=60)


def make_program(path: Path, lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{lines}\n')
    path.chmod(0o755)
    return path


def test_missing_interpreter(tmp_path):
    done = run_setup(tmp_path, PYTHON='no-such-python')
    assert done.returncode == 1 and 'there is no no-such-python' in done.stderr
    assert 'make test PYTHON=' in done.stderr


def test_old_interpreter(tmp_path):
    old = make_program(tmp_path / 'old', 'echo Python 3.8.1; [ "$1" = --version ]')
    done = run_setup(tmp_path, PYTHON=str(old))
    assert done.returncode == 1 and 'Python 3.8.1 is too old' in done.stderr


def test_interpreter_without_venv(tmp_path):
    bare = make_program(tmp_path / 'bare', '[ "$1" != -m ]')
    done = run_setup(tmp_path, PYTHON=str(bare))
    assert done.returncode == 1 and 'apt-get install python3-venv' in done.stderr


@pytest.mark.parametrize('failing', ['torch', 'mmdet', '--editable'])
def test_failed_step_shows_its_log_and_what_to_do(tmp_path, failing):
    make_program(
        tmp_path / 'venv' / 'bin' / 'python',
        f'case "$*" in *" install "*" {failing} "*|*" install "*" {failing}")'
        ' echo "the reason"; exit 1;; esac')
    (tmp_path / 'venv' / 'lib' / 'python3' / 'site-packages' / 'mmcv').mkdir(parents=True)
    (tmp_path / 'venv' / 'lib' / 'python3' / 'site-packages' / 'mmcv' / '_ext.so').touch()
    done = run_setup(tmp_path)
    assert done.returncode == 1
    assert 'the reason' in done.stderr
    assert 'check that pip reaches a package index' in done.stderr
    assert not (tmp_path / 'venv' / 'setup.stamp').exists()


def test_second_call_has_nothing_to_do(tmp_path):
    make_program(tmp_path / 'venv' / 'bin' / 'python', 'exit 0')
    ops = tmp_path / 'venv' / 'lib' / 'python3' / 'site-packages' / 'mmcv' / '_ext.so'
    ops.parent.mkdir(parents=True)
    ops.touch()
    first = run_setup(tmp_path)
    assert first.returncode == 0 and 'setup: done' in first.stdout
    assert run_setup(tmp_path).stdout == ''
    (tmp_path / 'venv' / 'setup.stamp').write_text('of other requirements')
    assert 'setup: done' in run_setup(tmp_path).stdout


@pytest.mark.parametrize('stack, mmcv, others', [
    ('openmmlab', 'mmcv', 'mmengine mmdet'),
    ('onedl', 'onedl-mmcv', 'onedl-mmengine onedl-mmdetection'),
])
def test_each_stack_has_its_distributions(tmp_path, stack, mmcv, others):
    ops = tmp_path / 'venv' / 'lib' / 'python3' / 'site-packages' / 'mmcv' / '_ext.so'
    ops.parent.mkdir(parents=True)
    make_program(
        tmp_path / 'venv' / 'bin' / 'python',
        f'echo "$*" >> {tmp_path}/calls; case "$*" in *" install -v "*" {mmcv}") touch {ops};; esac'
    )
    done = run_setup(tmp_path, JOBS='1', STACK=stack)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert [call for call in calls if call.endswith(f'constraints.txt {others}')]


def test_unknown_stack(tmp_path):
    done = run_setup(tmp_path, STACK='mmlab')
    assert done.returncode == 1
    assert 'there is no stack mmlab' in done.stderr and 'STACK=onedl' in done.stderr


@pytest.mark.parametrize('stack, installed', [('onedl', 'mmcv-2.1.0'),
                                              ('openmmlab', 'onedl_mmcv-2.3.6')])
def test_environment_of_the_other_stack_is_left_alone(tmp_path, stack, installed):
    make_program(tmp_path / 'venv' / 'bin' / 'python', f'echo "$*" >> {tmp_path}/calls')
    (tmp_path / 'venv/lib/python3/site-packages' / f'{installed}.dist-info').mkdir(parents=True)
    done = run_setup(tmp_path, STACK=stack)
    assert done.returncode == 1 and 'has the packages of the other stack' in done.stderr
    assert 'install' not in (tmp_path / 'calls').read_text()


def test_mmcv_without_operators_is_built_again_without_the_cache(tmp_path):
    ops = tmp_path / 'venv' / 'lib' / 'python3' / 'site-packages' / 'mmcv' / '_ext.so'
    ops.parent.mkdir(parents=True)
    make_program(tmp_path / 'venv' / 'bin' / 'python',
                 f'echo "$*" >> {tmp_path}/calls; case "$*" in *" mmcv") touch {ops};; esac')
    done = run_setup(tmp_path, JOBS='1')
    assert done.returncode == 0, done.stderr
    assert 'has no compiled operators' in done.stdout
    calls = (tmp_path / 'calls').read_text()
    assert 'uninstall --yes mmcv' in calls
    assert '--no-cache-dir --no-build-isolation --constraint' in calls
