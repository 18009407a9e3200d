"""How processes that a script started end: by Ctrl-C, by an error they share, by a signal."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.data import make_coco, run_cfg

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
pytestmark = pytest.mark.skipif(os.name != 'posix', reason='the scripts are for bash')


def take_ctrl_c() -> None:
    """A process group of its own, which takes SIGINT even where that was ignored."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(log: Path, *command: object) -> subprocess.Popen:
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = dict(os.environ, PATH=path, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    with log.open('w') as output:
        return subprocess.Popen(
            list(map(str, command)),
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=take_ctrl_c)


def press_ctrl_c(process: subprocess.Popen, log: Path, when: str) -> None:
    """Interrupt a whole group, as a terminal does, when a text is in its log."""
    for _ in range(1500):
        if process.poll() is not None or when in log.read_text():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    'command', [
        ['bash', TOOLS / 'dist_train.sh', 'CONFIG', 2],
        [sys.executable, '-m', 'mmaqd', 'train', 'CONFIG'],
    ],
    ids=['dist_train.sh', 'mmaqd'])
def test_ctrl_c_ends_in_one_line(tmp_path, command):
    config, log = tmp_path / 'tiny.py', tmp_path / 'log'
    run_cfg(make_coco(tmp_path / 'data', 8), tmp_path / 'work', bits=4, epochs=500).dump(config)
    process = start(log, *(config if each == 'CONFIG' else each for each in command))
    press_ctrl_c(process, log, 'Saving checkpoint at 2 epochs')
    assert process.wait(60) == 130
    text = log.read_text()
    assert 'Traceback' not in text
    last = text.splitlines()[-1]
    assert last.startswith('Stopped in epoch ') and '--resume goes on from' in last
    assert Path(last.split()[-1][:-1]).is_file()
    assert text.count('Stopped in') == 1


def test_a_wrong_key_is_printed_once(tmp_path):
    config, log = tmp_path / 'tiny.py', tmp_path / 'log'
    cfg = run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work', bits=4)
    cfg.model.quantization.weight_quantizer.bit_widht = 4
    cfg.dump(config)
    assert start(log, 'bash', TOOLS / 'dist_train.sh', config, 2).wait(200) == 1
    lines = log.read_text().splitlines()
    assert 'LIQWeightQuantizer got unknown key(s) bit_widht' in lines[-1]
    assert len([each for each in lines if 'Error: backbone.conv1: LIQ' in each]) == 1


def test_a_killed_process_is_named(tmp_path):
    (tmp_path / 'killed.py').write_text('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)')
    log = tmp_path / 'log'
    done = start(log, sys.executable, TOOLS / 'processes.py', '--nproc_per_node=1',
                 '--master_port=0', tmp_path / 'killed.py')
    assert done.wait(100) == 128 + signal.SIGKILL
    assert log.read_text().splitlines()[-1] == 'The process of rank 0 was killed by SIGKILL.'
