"""What the checks of a checkpoint cost at full size: python -m tests.faults.checkpoint_cost."""
from __future__ import annotations

import argparse
import os.path as osp
import tempfile
import time
from typing import Callable

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmaqd.checkpoints import check_values, read_checkpoint
from mmaqd.checkpoints.archive import fault_of_file
from mmaqd.registry import MODELS


def median_time(function: Callable[[], object], times: int = 5) -> float:
    """Median of the seconds of some calls, after one that is not counted."""
    function()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[times // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config', default='configs/retinanet/retinanet_r50_fpn_mlbn-w4a4_1x_coco.py')
    cfg = Config.fromfile(parser.parse_args().config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    state = model.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'full.pth')
        torch.save(dict(state_dict=state, meta={}), path)
        print(f'{osp.getsize(path) / 2**20:.0f} MiB, {len(state)} values')
        for name, function in {
                'checksums': lambda: fault_of_file(path),
                'torch.load, weights only': lambda: torch.load(path, weights_only=True),
                'read_checkpoint': lambda: read_checkpoint(path),
                'check_values': lambda: check_values(model, state),
                'load_state_dict, checks included': lambda: model.load_state_dict(state),
        }.items():
            print(f'{name}: {1000 * median_time(function):.0f} ms')


if __name__ == '__main__':
    main()
