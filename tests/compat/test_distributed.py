"""What is prepared for several processes on the CPU, and what is refused there."""
from __future__ import annotations

import pytest
import torch.distributed as torch_dist
from mmengine.config import Config

from mmaqd.compat import distributed, setup_cpu_distributed

MODEL = dict(
    type='RetinaNet',
    backbone=dict(norm_cfg=dict(type='BN')),
    bbox_head=dict(norm_cfg=dict(type='mmaqd.MultiLevelBN')),
    transforms=[dict(type='Resize')])


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Behave as on a machine without a GPU, and start no process group."""
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(torch_dist, 'is_initialized', lambda: False)
    started = []
    monkeypatch.setattr(torch_dist, 'init_process_group', started.append)
    monkeypatch.setattr(distributed.atexit, 'register', lambda function: None)
    return started


def test_gloo_is_started_and_the_wrapper_has_no_device(no_gpu):
    cfg = Config(dict(model=MODEL, find_unused_parameters=True))
    setup_cpu_distributed(cfg, 'pytorch')
    assert no_gpu == ['gloo']
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True)


def test_wrapper_of_the_config_is_kept():
    wrapper = dict(type='MMSeparateDistributedDataParallel', device_ids=[0], static_graph=True)
    cfg = Config(dict(model=MODEL, model_wrapper_cfg=wrapper))
    setup_cpu_distributed(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg.type == 'MMSeparateDistributedDataParallel'
    assert cfg.model_wrapper_cfg.static_graph and cfg.model_wrapper_cfg.device_ids is None


def test_group_that_runs_already_is_kept(no_gpu, monkeypatch):
    monkeypatch.setattr(torch_dist, 'is_initialized', lambda: True)
    setup_cpu_distributed(Config(dict(model=MODEL)), 'pytorch')
    assert no_gpu == []


@pytest.mark.parametrize('is_running', [True, False])
def test_the_group_is_left_when_the_process_ends(monkeypatch, is_running):
    at_exit, left = [], []
    monkeypatch.setattr(distributed.atexit, 'register', at_exit.append)
    monkeypatch.setattr(torch_dist, 'destroy_process_group', lambda: left.append('gloo'))
    monkeypatch.setattr(distributed.gc, 'collect', lambda: left.append('the model'))
    setup_cpu_distributed(Config(dict(model=MODEL)), 'pytorch')
    monkeypatch.setattr(torch_dist, 'is_initialized', lambda: is_running)
    for function in at_exit:
        function()
    assert left == (['gloo', 'the model'] if is_running else [])


@pytest.mark.parametrize('launcher, device', [('none', 'cpu'), ('pytorch', 'cuda'),
                                              ('slurm', 'npu')])
def test_other_runs_are_left_alone(no_gpu, monkeypatch, launcher, device):
    monkeypatch.setattr(distributed, 'get_device', lambda: device)
    cfg = Config(dict(model=dict(norm_cfg=dict(type='SyncBN'))))
    setup_cpu_distributed(cfg, launcher)
    assert no_gpu == [] and 'model_wrapper_cfg' not in cfg


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_for_gpus_name_the_one_for_the_cpu(launcher):
    with pytest.raises(ValueError, match=f'--launcher {launcher} needs GPUs.*dist_train.sh'):
        setup_cpu_distributed(Config(dict(model=MODEL)), launcher)


@pytest.mark.parametrize('name, instead', [
    ('SyncBN', 'BN'),
    ('mmcv.SyncBN', 'BN'),
    ('MMSyncBN', 'BN'),
    ('mmaqd.MultiLevelSyncBN', 'mmaqd.MultiLevelBN'),
])
def test_synchronized_bn_is_refused_with_all_the_options_to_set(name, instead):
    cfg = Config(dict(model=MODEL))
    cfg.merge_from_dict({'model.bbox_head.norm_cfg.type': name, 'model.transforms.0.type': name})
    with pytest.raises(ValueError) as error:
        setup_cpu_distributed(cfg, 'pytorch')
    assert (f'--cfg-options model.bbox_head.norm_cfg.type={instead} '
            f'model.transforms.0.type={instead}') in str(error.value)


def test_conversion_to_synchronized_bn_is_refused():
    with pytest.raises(ValueError, match="sync_bn='torch'.*Set sync_bn=None"):
        setup_cpu_distributed(Config(dict(model=MODEL, sync_bn='torch')), 'pytorch')
