"""The configs for BCCD on a few of its images, with a narrow model."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmaqd
from tests.helpers.bccd import BCCD, needs_bccd
from tests.helpers.runs import make_runner, scalars, train

pytestmark = needs_bccd

CONFIGS = ['retinanet_r18_fpn_mlbn-w4a4_1xb2-6e_bccd.py', 'fcos_r18_fpn_mlbn-w2a2_1xb8-6e_bccd.py']


def narrow_cfg(name: str, work_dir: Path) -> Config:
    """One of our configs with a narrow model, six small images to train on and four to test on."""
    cfg = Config.fromfile(mmaqd.config_path(f'bccd/{name}'))
    cfg.merge_from_dict({
        'work_dir': str(work_dir),
        'load_from': None,
        'model.backbone.base_channels': 8,
        'model.neck.in_channels': [8, 16, 32, 64],
        'model.neck.out_channels': 16,
        'model.bbox_head.in_channels': 16,
        'model.bbox_head.feat_channels': 16,
        'model.bbox_head.stacked_convs': 1,
        'model.test_cfg.score_thr': 0.0,
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.dataset.indices': 6,
        'test_dataloader.num_workers': 0,
        'test_dataloader.dataset.indices': 4,
        'default_hooks.logger.interval': 1,
    })
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step['type'] == 'Resize':
                step.scale = (160, 120)
    return cfg


@pytest.mark.parametrize('name', CONFIGS, ids=['retinanet-w4a4', 'fcos-w2a2'])
def test_low_bit_config_trains_and_is_evaluated(name, tmp_path, monkeypatch):
    monkeypatch.setenv('MMAQD_BCCD', f'{BCCD}/')
    cfg = narrow_cfg(name, tmp_path)
    runner = train(cfg)
    assert runner.iter == 3
    losses = [record['loss'] for record in scalars(tmp_path) if 'loss' in record]
    assert len(losses) == 3 and np.isfinite(losses).all()
    metrics = make_runner(cfg, load_from=str(tmp_path / 'epoch_1.pth')).test()
    assert 0 <= metrics['coco/bbox_mAP'] <= 1


@pytest.mark.parametrize('name', CONFIGS, ids=['retinanet-w4a4', 'fcos-w2a2'])
def test_boxes_of_the_data_fit_the_classes_of_the_config(name, tmp_path, monkeypatch):
    monkeypatch.setenv('MMAQD_BCCD', f'{BCCD}/')
    cfg = narrow_cfg(name, tmp_path)
    runner = make_runner(cfg)
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader)))
    labels = torch.cat([sample.gt_instances.labels for sample in batch['data_samples']])
    assert len(labels) > 0
    assert int(labels.max()) < cfg.model.bbox_head.num_classes
