"""Training and testing with several processes on machines without a GPU."""

from __future__ import annotations

import atexit
import gc
from typing import Any, Iterator

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device

# The types of synchronized batch normalization, and what does the same without synchronizing.
_WITHOUT_SYNC = {
    'SyncBN': 'BN',
    'SyncBatchNorm': 'BN',
    'MMSyncBN': 'BN',
    'MultiLevelSyncBN': 'mmaqd.MultiLevelBN',
}


def setup_cpu_distributed(cfg: Config, launcher: str) -> None:
    """Make a distributed run possible on the CPU; do nothing for any other run.

    MMEngine assumes a GPU when it starts a process group and when it wraps the model. Without one,
    the group is started here with the backend gloo, and ``cfg.model_wrapper_cfg`` is completed by
    what a model on the CPU needs. Call it before the runner is built.

    Args:
        cfg: The config of the run; its ``model_wrapper_cfg`` is changed in place.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: The model has a synchronized batch normalization, which torch has for GPUs only,
            or the launcher is not ``'pytorch'``.
    """
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ValueError(f"--launcher {launcher} needs GPUs, and this machine has none that torch "
                         "can use. Several processes on the CPU are started by tools/dist_train.sh "
                         "and tools/dist_test.sh (--launcher pytorch).")
    _refuse_sync_bn(cfg)
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
    if not torch_dist.is_initialized():
        torch_dist.init_process_group('gloo')
        # Python aborts now and then if it ends before the threads of the group.
        atexit.register(_leave_process_group)


def _leave_process_group() -> None:
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
        gc.collect()  # the model, which refers to the group too; its threads end with it


def _refuse_sync_bn(cfg: Config) -> None:
    """Raise a ValueError if any layer would be a synchronized batch normalization."""
    if cfg.get('sync_bn') is not None:
        raise ValueError(f'sync_bn={cfg.sync_bn!r} turns batch normalization into a synchronized '
                         'one, which torch has for GPUs only. Set sync_bn=None on the CPU.')
    found = {
        key: name
        for key, name in _types(cfg.get('model') or {}, 'model')
        if name.rpartition('.')[-1] in _WITHOUT_SYNC
    }
    if found:
        options = ' '.join(f'{key}={_WITHOUT_SYNC[name.rpartition(".")[-1]]}'
                           for key, name in found.items())
        raise ValueError('The model has synchronized batch normalization, which torch has for GPUs '
                         f'only: {found}. For several processes on the CPU, use '
                         f'--cfg-options {options}')


def _types(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every ``type`` below a part of a config."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        path = f'{key}.{name}'
        if name == 'type' and isinstance(value, str):
            yield path, value
        elif isinstance(value, (dict, list, tuple)):
            yield from _types(value, path)
