"""The generated data set: the same for a seed, valid COCO, objects for every pyramid level."""
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mmaqd import config_path
from mmaqd.datasets import IMAGE_SIZE, ShapesSpec, ensure_shapes, find_shapes
from mmaqd.datasets.drawing import CLASSES, draw_shape, shape_polygon

SPEC = ShapesSpec(num_train=24, num_val=4, seed=3)
SMALL = ShapesSpec(num_train=2, num_val=1, seed=3)


def contents(root: Path) -> dict:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob('*')) if path.is_file()
    }


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    assert ensure_shapes(folder, SPEC)
    return folder


@pytest.fixture(scope='module')
def coco(root) -> COCO:
    return COCO(str(root / 'annotations/train.json'))


@pytest.fixture
def small(tmp_path) -> Path:
    ensure_shapes(tmp_path / 'shapes', SMALL)
    return tmp_path / 'shapes'


def test_the_same_seed_gives_the_same_files(small, tmp_path):
    ensure_shapes(tmp_path / 'again', SMALL)
    assert contents(tmp_path / 'again') == contents(small)


def test_seeds_and_splits_differ(small, tmp_path):
    ensure_shapes(tmp_path / 'other', replace(SMALL, seed=4))
    images = [
        contents(folder)[path] for folder in (small, tmp_path / 'other')
        for path in ('train/000000.jpg', 'train/000001.jpg', 'val/000000.jpg')
    ]
    assert len(set(images)) == 6


def test_every_image_is_annotated_and_decodes(root, coco):
    assert len(coco.imgs) == SPEC.num_train
    for number, image in coco.imgs.items():
        pixels = cv2.imread(str(root / 'train' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert coco.getAnnIds(number)


def test_annotations_are_valid(coco):
    assert [coco.cats[number]['name'] for number in sorted(coco.cats)] == list(CLASSES)
    assert len(coco.anns) == len(coco.dataset['annotations'])
    for annotation in coco.anns.values():
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0 and x + width <= IMAGE_SIZE and y + height <= IMAGE_SIZE
        assert min(width, height) >= 5
        assert annotation['area'] == pytest.approx(width * height, abs=0.01)
        assert annotation['category_id'] in coco.cats and annotation['iscrowd'] == 0


def test_classes_are_balanced(coco):
    counts = Counter(annotation['category_id'] for annotation in coco.anns.values())
    assert min(counts.values()) > 0.7 * max(counts.values())


def test_every_pyramid_level_gets_objects(coco):
    cfg = Config.fromfile(config_path('demo/retinanet_r18_fpn_mlbn_demo_shapes.py')).model
    generator = TASK_UTILS.build(cfg.bbox_head.anchor_generator)
    assigner = TASK_UTILS.build({**cfg.train_cfg.assigner, 'min_pos_iou': 0.5})
    sizes = [(IMAGE_SIZE // stride[0], ) * 2 for stride in generator.strides]
    anchors = generator.grid_priors(sizes, device='cpu')
    levels = torch.cat([torch.full((len(each), ), i) for i, each in enumerate(anchors)])
    matched = Counter()
    for number in coco.imgs:
        boxes = torch.tensor([a['bbox'] for a in coco.imgToAnns[number]])
        boxes[:, 2:] += boxes[:, :2]
        truth = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        result = assigner.assign(InstanceData(priors=torch.cat(anchors)), truth)
        for box in range(1, len(boxes) + 1):
            matched.update(set(levels[result.gt_inds == box].tolist()))
    assert all(matched[level] >= 5 for level in range(5)), matched


@pytest.mark.parametrize('name', CLASSES)
def test_an_outline_starts_at_the_origin_and_has_its_size(name):
    polygon = shape_polygon(name, size=40, aspect=1.3, angle=0.3)
    assert polygon.min() == 0 and polygon.max() == pytest.approx(40)


def test_a_shape_fills_its_box():
    image = np.full((64, 64, 3), 100, np.uint8)
    polygon = shape_polygon('circle', size=30, aspect=1, angle=0) + [10.5, 20.25]
    draw_shape(image, polygon, np.random.default_rng(0))
    rows, columns = np.nonzero((image != 100).any(axis=2))
    assert (columns.min(), columns.max()) == (10, 40)
    assert (rows.min(), rows.max()) == (20, 50)


def test_a_complete_data_set_is_left_alone(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob('*')}
    assert find_shapes(small, SMALL)
    assert not ensure_shapes(small, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in small.rglob('*')}


@pytest.mark.parametrize('path', ['train/000001.jpg', 'annotations/val.json', 'shapes.json'])
@pytest.mark.parametrize('damage', ['missing', 'truncated'])
def test_damage_is_repaired(small, path, damage):
    before = contents(small)
    if damage == 'missing':
        (small / path).unlink()
    else:
        (small / path).write_bytes(before[path][:50])
    assert not find_shapes(small, SMALL)
    assert ensure_shapes(small, SMALL)
    assert contents(small) == before


def test_another_spec_is_refused_and_nothing_written(small):
    before = contents(small)
    with pytest.raises(ValueError, match='another generated data set.*Remove that folder'):
        ensure_shapes(small, replace(SMALL, seed=5))
    assert contents(small) == before


@pytest.mark.parametrize(
    'bad',
    [dict(num_train=0),
     dict(num_val=-1),
     dict(seed=-1),
     dict(num_train=2.5),
     dict(seed='1')])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ShapesSpec(**bad)


def test_recorded_files_are_those_on_the_disk(root):
    recorded = json.loads((root / 'shapes.json').read_text())['sha256']
    assert {*recorded, 'shapes.json'} == set(contents(root))
