"""Which configs are taken, and what is said of the others."""
from __future__ import annotations

import pytest

from mmaqd.conversion.automatic.upstream import (build_without_download, has_masks, num_classes,
                                                 read_upstream)
from mmaqd.paths import config_path, upstream_config_path
from tests.helpers.detector import model_cfg

RETINANET = 'retinanet/retinanet_r18_fpn_1x_coco.py'


@pytest.mark.parametrize('given, base', [
    (RETINANET, f'mmdet::{RETINANET}'),
    (f'mmdet::{RETINANET}', f'mmdet::{RETINANET}'),
])
def test_a_name_of_an_upstream_config(given, base):
    upstream = read_upstream(given)
    assert (upstream.base, upstream.name) == (base, 'retinanet_r18_fpn_1x_coco')
    assert upstream.cfg.model.type == 'RetinaNet' and not upstream.options


def test_a_path_stays_as_it_was_given():
    path = upstream_config_path(RETINANET)
    assert read_upstream(path).base == path


def test_options_are_merged():
    options = {'model.bbox_head.num_classes': 3}
    upstream = read_upstream(RETINANET, options)
    assert upstream.cfg.model.bbox_head.num_classes == 3 and upstream.options == options


@pytest.mark.parametrize('text, message', [
    ("model = dict(type='mmaqd.QuantizedDetector', detector='RetinaNet')", 'is quantized already'),
    ('x = 3', 'no config of a detector'),
    ("model = dict(type='ResNet', depth=18)", "must be a detector of MMDetection, but got 'ResN"),
    ("model = dict(type='NoSuchNet')", "must be a detector of MMDetection, but got 'NoSuchNet'"),
    ("model = dict(type='RetinaNet', detector=dict())", 'has a key model.detector of its own'),
    ('model = dict(', 'can not be read'),
    ('from mmdet.models import RetinaNet\nmodel = dict(type=RetinaNet)', 'config of the new style'),
])
def test_what_is_no_config_of_a_float_detector(tmp_path, text, message):
    path = tmp_path / 'given.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_upstream(str(path))


def test_a_config_of_ours_at_low_bits():
    with pytest.raises(ValueError, match='Give the config of its float twin'):
        read_upstream(config_path('retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'))


def test_a_file_that_is_no_config(tmp_path):
    path = tmp_path / 'model.pth'
    path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'a name that ends in \.py'):
        read_upstream(str(path))


@pytest.mark.parametrize('name, message', [
    ('retinanet/retinanet_r18_fpn_1x_coc.py', 'Did you mean'),
    ('./nowhere.py', 'is no file'),
])
def test_a_config_that_is_not_there(name, message):
    with pytest.raises(FileNotFoundError, match=message):
        read_upstream(name)


def test_no_weights_are_fetched():
    cfg = model_cfg()
    cfg['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='torchvision://no_such')
    build_without_download(cfg)
    assert cfg['backbone']['init_cfg'] is not None


def test_what_the_data_need():
    mask_rcnn = read_upstream('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').cfg
    assert has_masks(mask_rcnn) and not has_masks(read_upstream(RETINANET).cfg)
    assert num_classes(dict(a=dict(num_classes=80), b=[dict(num_classes=3)])) == 3
    assert num_classes(dict()) == 1


def test_weights_are_those_of_a_start_from_scratch_without_zeros():
    cfg = model_cfg()
    cfg['backbone']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=0)
    model = build_without_download(cfg)
    assert model.backbone.conv1.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert model.bbox_head.retina_cls.bias[0].item() == pytest.approx(-4.595, abs=0.01)
