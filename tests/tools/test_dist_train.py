"""The scripts that start several processes: two of them on the CPU, and what is passed on."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.data import make_coco, run_cfg

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def run_script(name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """Run a script with this interpreter as its ``python``, seeing no GPU."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {
        **os.environ, 'PATH': path,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        **variables
    }
    return subprocess.run(['bash', TOOLS / name, *map(str, arguments)],
                          env=env,
                          text=True,
                          capture_output=True,
                          timeout=200)


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='the scripts are for bash')
def test_two_processes_train_resume_and_test(tmp_path):
    config, work = tmp_path / 'tiny.py', tmp_path / 'work'
    run_cfg(make_coco(tmp_path / 'data'), work, bits=4).dump(config)

    trained = run_script('dist_train.sh', config, 2)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert 'Distributed training: True' in trained.stdout + trained.stderr
    assert (work / 'epoch_1.pth').exists()

    resumed = run_script('dist_train.sh', config, 2, '--resume', '--cfg-options',
                         'train_cfg.max_epochs=2')
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert f'Load checkpoint from {work / "epoch_1.pth"}' in resumed.stdout + resumed.stderr
    state = torch.load(work / 'epoch_2.pth', weights_only=False)
    # Four images make one batch of two in each of the two processes.
    assert (state['message_hub']['runtime_info']['epoch'], state['meta']['iter']) == (1, 2)

    tested = run_script('dist_test.sh', config, work / 'epoch_2.pth', 2, '--work-dir',
                        tmp_path / 'test')
    assert tested.returncode == 0, tested.stderr[-3000:]
    assert 'coco/bbox_mAP' in tested.stdout + tested.stderr


def test_status_of_a_failed_run_is_passed_on(tmp_path):
    failed = run_script('dist_train.sh', tmp_path / 'no-such.py', 1)
    assert failed.returncode != 0 and 'no-such.py' in failed.stderr


@pytest.mark.parametrize('script, arguments', [
    ('dist_train.sh', ['config.py']),
    ('dist_test.sh', ['config.py', 'a.pth']),
    ('slurm_train.sh', ['gpu', 'job', 'config.py']),
    ('slurm_test.sh', ['gpu', 'job', 'config.py']),
])
def test_missing_arguments_show_the_usage(script, arguments):
    wrong = run_script(script, *arguments)
    assert wrong.returncode == 2 and wrong.stderr.startswith('usage: ')


@pytest.fixture
def fake_path(tmp_path) -> str:
    """A PATH whose ``srun`` and ``python`` print their arguments, one a line."""
    for name in ('srun', 'python'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\necho "$PYTHONPATH"\n')
        program.chmod(0o755)
    return f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'


@pytest.mark.parametrize('script, positional, expected', [
    ('slurm_train.sh', ['c.py', 'work dir'],
     [f'{TOOLS}/train.py', 'c.py', '--work-dir', 'work dir', '--launcher', 'slurm']),
    ('slurm_test.sh', ['c.py', 'a.pth'
                       ], [f'{TOOLS}/test.py', 'c.py', 'a.pth', '--launcher', 'slurm']),
])
def test_slurm_jobs(fake_path, script, positional, expected):
    done = run_script(
        script,
        'gpu',
        'my job',
        *positional,
        '--cfg-options',
        'a=[1, 2]',
        PATH=fake_path,
        GPUS='16',
        SRUN_ARGS='--time=1:0 --quiet')
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        '--partition=gpu', '--job-name=my job', '--gres=gpu:8', '--ntasks=16',
        '--ntasks-per-node=8', '--cpus-per-task=5'
    ]
    start = lines.index('python')
    assert lines[start - 2:start] == ['--time=1:0', '--quiet']
    assert lines[start + 2:-1] == [*expected, '--cfg-options', 'a=[1, 2]']


@pytest.mark.parametrize('script, positional', [
    ('dist_train.sh', ['c.py', '4']),
    ('dist_test.sh', ['c.py', 'a.pth', '4']),
])
def test_several_machines(fake_path, script, positional):
    done = run_script(
        script,
        *positional,
        '--cfg-options',
        'a="x y"',
        PATH=fake_path,
        NNODES='2',
        NODE_RANK='1',
        MASTER_ADDR='10.0.0.1',
        PYTHONPATH='mine')
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        f'{TOOLS}/processes.py', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1',
        '--master_port=29500', '--nproc_per_node=4'
    ]
    assert lines[7:] == [
        *positional[:-1], '--launcher', 'pytorch', '--cfg-options', 'a="x y"', f'{TOOLS}/..:mine'
    ]


def test_port_of_the_user_is_taken(fake_path):
    done = run_script('dist_train.sh', 'c.py', 1, PATH=fake_path, PORT='12345')
    assert '--master_port=12345' in done.stdout.splitlines()
