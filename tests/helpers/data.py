"""A data set in COCO format and a complete config around it, small enough to train in seconds."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from tests.helpers.detector import NUM_CLASSES, model_cfg

CLASSES = ('dark', 'grey', 'light')
_SHADES = (40, 128, 230)


def make_coco(root: Path, num_images: int = 4, size: int = 64, num_empty: int = 0) -> Path:
    """Write images of noise with one or two rectangles each, and their annotations.

    Args:
        root: Folder for ``images/`` and ``annotations.json``.
        num_images: Images in all.
        size: Their height and width in pixels.
        num_empty: How many of them have no object.

    Returns:
        ``root``.
    """
    random = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(num_images):
        picture = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        name = f'{image_id}.png'
        for _ in range(0 if image_id < num_empty else 1 + image_id % 2):
            annotations.append(_add_rectangle(picture, image_id, len(annotations), random))
        cv2.imwrite(str(root / 'images' / name), picture)
        images.append(dict(id=image_id, file_name=name, height=size, width=size))
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations.json').write_text(json.dumps(content))
    return root


def make_own(root: Path, form: str, grey: bool = False) -> Path:
    """Write four images as configs/own_data expects them, each in both splits.

    Args:
        root: The data set's folder.
        form: Of the annotations, ``'coco'`` or ``'voc'``.
        grey: Whether the files hold one channel.

    Returns:
        ``root``.
    """
    make_coco(root)
    for path in (root / 'images').iterdir() if grey else ():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    if form == 'voc':
        _make_voc(root)
        return root
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / 'annotations' / f'{split}.json').write_text((root / 'annotations.json').read_text())
    return root


def _make_voc(root: Path) -> None:
    """Write the images and boxes of a COCO data set as VOC has them."""
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    content = json.loads((root / 'annotations.json').read_text())
    for image in content['images']:
        name = Path(image['file_name']).stem
        picture = cv2.imread(str(root / 'images' / image['file_name']), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(root / 'JPEGImages' / f'{name}.jpg'), picture)
        boxes = [each for each in content['annotations'] if each['image_id'] == image['id']]
        (root / 'Annotations' / f'{name}.xml').write_text(_xml(image, boxes))
    names = [Path(image['file_name']).stem for image in content['images']]
    for split in ('train', 'val'):
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names))


def _xml(image: dict, boxes: list[dict]) -> str:
    """The file of VOC's that describes an image; its pixels are counted from 1."""
    objects = []
    for box in boxes:
        x, y, w, h = box['bbox']
        objects.append(f'<object><name>{CLASSES[box["category_id"]]}</name><bndbox>'
                       f'<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
                       f'<xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox></object>')
    return (f'<annotation><size><width>{image["width"]}</width><height>{image["height"]}</height>'
            f'<depth>3</depth></size>{"".join(objects)}</annotation>')


def _add_rectangle(picture: np.ndarray, image_id: int, index: int, random: Any) -> dict:
    """Draw a rectangle of a random class and return its annotation."""
    size, category = len(picture), int(random.integers(NUM_CLASSES))
    w, h = (int(n) for n in random.integers(size // 4, size // 2, 2))
    x, y = (int(random.integers(size - n)) for n in (w, h))
    picture[y:y + h, x:x + w] = _SHADES[category]
    return dict(
        id=index, image_id=image_id, category_id=category, bbox=[x, y, w, h], area=w * h, iscrowd=0)


def run_cfg(data: Path, work_dir: Path, bits: int | None = None, epochs: int = 1) -> Config:
    """A config that trains, validates and tests a tiny RetinaNet on :func:`make_coco`'s data.

    Args:
        data: The data set's folder.
        work_dir: Where the run writes.
        bits: Bit width of the model, or None for the float one.
        epochs: Number of epochs.
    """
    loader = dict(
        batch_size=2,
        num_workers=0,
        persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=_dataset(data, train=False))
    metric = dict(type='CocoMetric', ann_file=str(data / 'annotations.json'), metric='bbox')
    return Config(
        dict(
            custom_imports=dict(imports=['mmaqd'], allow_failed_imports=False),
            default_scope='mmdet',
            work_dir=str(work_dir),
            model=model_cfg('RetinaNet', bits),
            train_dataloader={
                **loader, 'dataset': _dataset(data, train=True)
            },
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                visualization=dict(type='DetVisualizationHook')),
            custom_hooks=[dict(type='mmaqd.EpochSeedHook')] +
            ([dict(type='mmaqd.InitializeIntervalsHook')] if bits else []),
            visualizer=dict(
                type='DetLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name='visualizer'),
            randomness=dict(seed=0)))


def _dataset(data: Path, train: bool) -> dict:
    """The dataset part of a config, with the pipeline for training or for testing."""
    last = dict(type='PackDetInputs')
    if not train:
        last['meta_keys'] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        test_mode=not train,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            last,
        ])
