"""Finding configs: ours and MMDetection's, and a config elsewhere that inherits one of ours."""
from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmaqd import config_path, upstream_config_path
from mmaqd.engine.launch import load_config


@pytest.mark.parametrize('find, relative', [
    (config_path, 'retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'),
    (config_path, '_base_/mmaqd_runtime.py'),
    (upstream_config_path, 'retinanet/retinanet_r18_fpn_1x_coco.py'),
])
def test_path_is_absolute_and_exists(find, relative):
    path = Path(find(relative))
    assert path.is_absolute()
    assert path.is_file()
    assert path.as_posix().endswith(relative)


@pytest.mark.parametrize('find, package, wrong, meant', [
    (config_path, 'mmaqd', 'retinanet/retinanet_r18_fpn_mlbn_w4a4_1x_coco.py',
     'retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'),
    (upstream_config_path, 'mmdet', 'retinanet/retinanet_r18_1x_coco.py',
     'retinanet/retinanet_r18_fpn_1x_coco.py'),
])
def test_unknown_name_lists_close_matches(find, package, wrong, meant):
    with pytest.raises(FileNotFoundError) as error:
        find(wrong)
    assert f'{package} has no config {wrong!r}' in str(error.value)
    assert f'Did you mean {meant!r}' in str(error.value)


def test_a_name_of_before_is_found_with_a_warning():
    with pytest.warns(FutureWarning, match='retinanet_r18_fpn_mlbn_12e_bccd.py is called .*_1xb8-'):
        path = config_path('bccd/retinanet_r18_fpn_mlbn_12e_bccd.py')
    assert path == config_path('bccd/retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py')
    with pytest.warns(FutureWarning, match='names tell the batch'):
        loaded = load_config(path.replace('_1xb8-', '_'))
    assert loaded.model.type == 'RetinaNet'
    assert loaded.work_dir == 'work_dirs/retinanet_r18_fpn_mlbn_1xb8-12e_bccd'


def test_name_without_close_match_says_where_the_configs_lie():
    with pytest.raises(FileNotFoundError, match='They lie in .*configs'):
        config_path('#')


def test_folder_is_not_a_config():
    with pytest.raises(FileNotFoundError, match="has no config 'retinanet'"):
        config_path('retinanet')


def test_package_without_configs_says_what_to_do(monkeypatch, tmp_path):

    class Spec:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr('mmaqd.paths.find_spec', lambda name: Spec)
    with pytest.raises(FileNotFoundError, match='mmdet carries no configs.*Install mmdet'):
        upstream_config_path('retinanet/retinanet_r18_fpn_1x_coco.py')


def test_config_elsewhere_inherits_ours(tmp_path):
    relative = 'retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = __import__('mmaqd').config_path('{relative}')\n"
                    'model = dict(bbox_head=dict(num_classes=3))\n')
    config, base = Config.fromfile(mine), Config.fromfile(config_path(relative))
    assert config.model.bbox_head.num_classes == 3
    assert config.model.quantization == base.model.quantization
    assert config.default_scope == 'mmdet'
