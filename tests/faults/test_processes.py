"""Two processes on the CPU: they compute what one does, and end together."""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import distributed, multiprocessing, nn

from mmaqd.quantizers import calibrate
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, loss, make_batch, model_cfg
from tests.helpers.runs import differences

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 4
HOOKS = '''
import os, signal
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SaveQuantizersHook(Hook):
    priority = 'LOWEST'

    def before_train(self, runner):
        self.save(runner, 'started')

    def after_train(self, runner):
        self.save(runner, 'trained')

    def save(self, runner, name):
        state = {k: v for k, v in runner.model.state_dict().items() if '_quantizer.' in k}
        torch.save(state, Path(runner.work_dir) / f'{name}{get_rank()}.pth')


@HOOKS.register_module()
class DieHook(Hook):

    def after_train_iter(self, runner, *args, **kwargs):
        if get_rank() == 1:
            Path(runner.work_dir, 'died').touch()
            os.kill(os.getpid(), signal.SIGKILL)
'''


def half_trained(detector: str) -> nn.Module:
    """A calibrated detector whose BN is frozen, since each process has a batch of its own."""
    model = build(model_cfg(detector, bits=4)).train()
    calibrate(model, [make_batch(num_images=IMAGES)])
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def step_in_process(rank: int, detector: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    model = half_trained(detector)
    wrapped = MMDistributedDataParallel(model)
    whole, own = make_batch(num_images=IMAGES), slice(2 * rank, 2 * rank + 2)
    batch = {key: values[own] for key, values in whole.items()}
    data = model.data_preprocessor(batch, training=True)
    model.parse_losses(wrapped(**data, mode='loss'))[0].backward()
    torch.save(gradients(model), f'{folder}/{rank}.pth')


@pytest.mark.slow
@pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS'])
def test_gradients_are_those_of_one_process(detector: str, tmp_path: Path) -> None:
    multiprocessing.spawn(step_in_process, (detector, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert not differences(first, second)
    model = half_trained(detector)
    loss(model, make_batch(num_images=IMAGES)).backward()
    expected = gradients(model)
    assert first.keys() == expected.keys()
    assert sum('interval' in name for name in expected) > 20
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5 * value.abs().max())


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A low-bit run of two batches for each of two processes, with the hooks above."""
    (tmp_path / 'hooks_of_test.py').write_text(HOOKS)
    cfg = run_cfg(make_coco(tmp_path / 'data', num_images=8), tmp_path / 'work', bits=4)
    cfg.custom_imports.imports.append('hooks_of_test')
    return cfg


def start(cfg: Config, folder: Path) -> subprocess.Popen:
    cfg.dump(folder / 'config.py')
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '',
           'PYTHONPATH': str(folder)}  # yapf: disable
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(folder / 'config.py'), '2']
    with open(folder / 'log', 'w') as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


@pytest.mark.skipif(os.name != 'posix', reason='the scripts are for bash')
class TestRuns:

    @pytest.mark.slow
    def test_intervals_are_equal_and_partial_states_are_no_foreign_ones(self, cfg, tmp_path):
        # MMDetection's YOLOX configs have this hook: it loads the states of the norms alone.
        cfg.custom_hooks += [dict(type='SyncNormHook'), dict(type='SaveQuantizersHook')]
        assert start(cfg, tmp_path).wait(200) == 0, (tmp_path / 'log').read_text()[-3000:]
        for when in ('started', 'trained'):
            first, second = (torch.load(tmp_path / f'work/{when}{rank}.pth') for rank in (0, 1))
            assert first and not differences(first, second)
            assert all(each for key, each in first.items() if key.endswith('.initialized'))
        started, trained = (
            torch.load(tmp_path / f'work/{when}0.pth') for when in ('started', 'trained'))
        assert differences(started, trained)
        assert 'coco/bbox_mAP' in (tmp_path / 'log').read_text()

    @pytest.mark.slow
    def test_one_that_is_killed_ends_the_other_within_a_minute(self, cfg, tmp_path):
        cfg.custom_hooks += [dict(type='DieHook')]
        cfg.train_cfg.max_epochs = 1000
        process = start(cfg, tmp_path)
        try:
            while not (tmp_path / 'work/died').exists():
                assert process.poll() is None, (tmp_path / 'log').read_text()[-3000:]
                time.sleep(0.1)
            assert process.wait(60)
        finally:
            process.kill()
