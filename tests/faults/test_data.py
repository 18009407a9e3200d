"""Every tool of ours over data that are not a plain COCO data set of colour images."""
from __future__ import annotations

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmaqd.analysis import (build_detector, report_level_statistics, report_quantization_noise,
                            report_sensitivity, report_size)
from mmaqd.conversion import quantization_table
from mmaqd.engine import launch
from mmaqd.engine.post_training import calibrate_checkpoint
from tests.helpers.data import CLASSES, make_coco, run_cfg

GREY = dict(type='LoadImageFromFile', color_type='grayscale')
UNCHANGED = dict(type='LoadImageFromFile', color_type='unchanged')


def grey(cfg: Config, root: Path) -> None:
    """Images of one channel from the file to the first conv."""
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[0] = GREY
    cfg.model.data_preprocessor.update(mean=[116], std=[1], bgr_to_rgb=False)
    cfg.model.backbone.in_channels = 1


def with_alpha(cfg: Config, root: Path) -> None:
    """Images of four channels, which MMDetection normalizes in no way."""
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[0] = UNCHANGED
    for path in (root / 'images').iterdir():
        picture = cv2.imread(str(path))
        cv2.imwrite(str(path), np.dstack([picture, picture[..., 0]]))
    cfg.model.data_preprocessor.update(mean=None, std=None, bgr_to_rgb=False)
    cfg.model.backbone.in_channels = 4


def repeated(cfg: Config, root: Path) -> None:
    for split in ('train', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset = dict(type='RepeatDataset', times=2, dataset=loader.dataset)


def concatenated(cfg: Config, root: Path) -> None:
    for split in ('train', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset = dict(type='ConcatDataset', datasets=[loader.dataset, loader.dataset])


def without_test_data(cfg: Config, root: Path) -> None:
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        cfg.pop(key)


def voc(cfg: Config, root: Path) -> None:
    """The same images with annotations as VOC has them."""
    folder = make_voc(root)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(type='VOCDataset', data_root=str(folder), ann_file='ImageSets/Main/all.txt')
        dataset.data_prefix = dict(sub_data_root='')
    cfg.val_evaluator = cfg.test_evaluator = dict(type='VOCMetric', metric='mAP')


def make_voc(root: Path) -> Path:
    """Write ``VOC2007`` with the images of the COCO data set and a box in each."""
    folder = root / 'VOC2007'
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    names = []
    for index, path in enumerate(sorted((root / 'images').iterdir())):
        (folder / 'JPEGImages' / f'{path.stem}.jpg').write_bytes(path.read_bytes())
        (folder / 'Annotations' / f'{path.stem}.xml').write_text(
            '<annotation><size><width>64</width><height>64</height><depth>3</depth></size><object>'
            f'<name>{CLASSES[index % 3]}</name><difficult>0</difficult><bndbox><xmin>8</xmin>'
            '<ymin>8</ymin><xmax>40</xmax><ymax>44</ymax></bndbox></object></annotation>')
        names.append(path.stem)
    (folder / 'ImageSets' / 'Main' / 'all.txt').write_text('\n'.join(names))
    return folder


KINDS = [grey, with_alpha, repeated, concatenated, without_test_data, voc]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_every_tool(tmp_path: Path, kind: Callable) -> None:
    root = make_coco(tmp_path / 'data')
    config, low = tmp_path / 'float.py', tmp_path / 'low.py'
    for path, bits in ((config, None), (low, 4)):
        cfg = run_cfg(root, tmp_path / path.stem, bits=bits)
        if bits:
            cfg.model.quantization.weight_quantizer.normalize = False
        if path == config or kind is not voc:
            kind(cfg, root)
        else:
            cfg.train_dataloader = Config.fromfile(config).train_dataloader
            cfg.test_dataloader = Config.fromfile(config).test_dataloader
            cfg.val_dataloader = Config.fromfile(config).val_dataloader
            cfg.val_evaluator = cfg.test_evaluator = dict(type='VOCMetric', metric='mAP')
        cfg.dump(path)
    launch.train(str(config))
    given = (str(low), str(tmp_path / 'float' / 'epoch_1.pth'))
    out = tmp_path / 'ptq.pth'
    assert calibrate_checkpoint(*given, str(out), 1, reestimate_bn=True) > 0
    trained = (str(low), str(out))
    cfg, model = build_detector(low)
    assert report_size(cfg, model, quantization_table(model), tmp_path)
    assert report_level_statistics(*trained, tmp_path, num_batches=1)
    assert report_quantization_noise(*trained, tmp_path, 'neck.*', num_batches=1)
    assert report_sensitivity(*trained, tmp_path, groups=['neck.*'], num_batches=1)
    if kind is not without_test_data and kind not in (repeated, concatenated):
        assert launch.test(str(low), trained[1], str(tmp_path / 'test'))
