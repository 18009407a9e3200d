"""The COCO recipes of RTMDet and YOLOX run with all their hooks, on small images."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook

from mmaqd.engine import launch
from mmaqd.quantizers import Quantizer
from tests.helpers.data import CLASSES, make_coco

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RECIPES = ['rtmdet/rtmdet_tiny-w4a4_8xb32-30e_coco.py', 'yolox/yolox_tiny-w4a4_8xb8-30e_coco.py']
SMALLER = {640: 64, 1280: 128, 320: 32, -320: -32}


def smaller(value: Any) -> Any:
    """A part of a config with a tenth of the pixels in each direction."""
    if isinstance(value, dict):
        return {key: smaller(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(smaller(each) for each in value)
    return SMALLER.get(value, value) if isinstance(value, int) else value


def small_recipe(name: str, data: Path) -> Config:
    """A recipe with its pipelines and hooks, two epochs of two iterations."""
    config = Config.fromfile(CONFIGS / name)
    config.model.backbone.init_cfg = None
    config.model.bbox_head.num_classes = len(CLASSES)
    loader = config.train_dataloader
    dataset = loader.dataset.get('dataset', loader.dataset)  # YOLOX mixes images of another
    dataset.update(
        data_root=str(data),
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES))
    loader.update(batch_size=2, num_workers=0, pin_memory=False)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    config.train_cfg.update(max_epochs=2)
    config.load_from = None
    for hook in config.custom_hooks:
        if hook.type == 'YOLOXModeSwitchHook':
            hook.num_last_epochs = 1
        if hook.type == 'PipelineSwitchHook':
            hook.switch_epoch = 1
    if config.model.data_preprocessor.get('batch_augments'):
        config.model.data_preprocessor.batch_augments[0].update(
            random_size_range=(64, 128), interval=1)
    config.train_dataloader = smaller(loader.to_dict())
    config.custom_hooks = smaller(config.custom_hooks)
    return config


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_the_recipe_trains_with_all_its_hooks(name, tmp_path):
    config = small_recipe(name, make_coco(tmp_path / 'data'))
    config.dump(tmp_path / 'recipe.py')
    runner = launch.train(str(tmp_path / 'recipe.py'), work_dir=str(tmp_path / 'work'))
    assert runner.iter == 4
    average, = (hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook))
    averaged = dict(average.module.named_modules())
    quantizers = {
        n: each
        for n, each in runner.model.named_modules() if isinstance(each, Quantizer)
    }
    assert quantizers
    for module, quantizer in quantizers.items():
        assert bool(quantizer.initialized) and bool(averaged[module].initialized), module
        # Four steps with a momentum of at most 0.002 leave the average near the start.
        torch.testing.assert_close(
            averaged[module].interval, quantizer.interval, rtol=0.5, atol=0.1, msg=module)
