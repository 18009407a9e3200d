"""Missing annotations and image folders are named by their key, before anything is built."""
from __future__ import annotations

import pytest
from mmengine.config import Config

from mmaqd.compat import check_data_files


@pytest.fixture
def cfg(tmp_path) -> Config:
    """A config whose data are all there, with a wrapper and with several metrics."""
    for name in ('ann/train.json', 'ann/val.json', 'ann/more.json'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'images').mkdir()
    root = f'{tmp_path}/'

    def dataset(name):
        return dict(data_root=root, ann_file=f'ann/{name}.json', data_prefix=dict(img='images/'))

    concat = dict(type='ConcatDataset', datasets=[dataset('train'), dataset('more')])
    return Config(
        dict(
            train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=concat)),
            val_dataloader=dict(dataset=dataset('val')),
            test_dataloader=None,
            val_evaluator=dict(ann_file=root + 'ann/val.json'),
            test_evaluator=[dict(type='Other'),
                            dict(ann_file=root + 'ann/val.json')]))


def test_data_that_are_there(cfg):
    check_data_files(cfg)


@pytest.mark.parametrize('remove, key', [
    ('ann/more.json', 'train_dataloader.dataset.dataset.datasets.1.ann_file'),
    ('ann/val.json', 'val_dataloader.dataset.ann_file'),
    ('ann/val.json', 'val_evaluator.ann_file'),
    ('ann/val.json', 'test_evaluator.1.ann_file'),
])
def test_missing_annotations_are_named(cfg, tmp_path, remove, key):
    (tmp_path / remove).unlink()
    part = key.split('_')[0]
    if 'evaluator' in key:
        cfg[f'{part}_dataloader'] = None
    with pytest.raises(FileNotFoundError) as error:
        check_data_files(cfg, [part])
    assert f'  {key}: {tmp_path / remove}\n' in str(error.value)
    assert 'ln -s' in str(error.value)
    assert f'--cfg-options {key}=' in str(error.value)


@pytest.mark.parametrize('root_is_there, option', [
    (True, 'val_dataloader.dataset.data_prefix.img=path/below/'),
    (False, 'val_dataloader.dataset.data_root=/where/they/are'),
])
def test_the_key_to_set_is_that_of_what_is_missing(cfg, tmp_path, root_is_there, option):
    dataset = cfg.val_dataloader.dataset
    if not root_is_there:
        dataset.data_root = str(tmp_path / 'elsewhere')
    dataset.ann_file = ''
    dataset.data_prefix = dict(img='pictures/')
    with pytest.raises(FileNotFoundError) as error:
        check_data_files(cfg, ['val'])
    assert f'--cfg-options {option}' in str(error.value)


def test_missing_folder_is_named(cfg, tmp_path):
    (tmp_path / 'images').rmdir()
    with pytest.raises(FileNotFoundError, match='val_dataloader.dataset.data_prefix.img: .*images'):
        check_data_files(cfg, ['val'])


def test_only_the_splits_of_the_run_are_looked_at(cfg, tmp_path):
    (tmp_path / 'ann/train.json').unlink()
    check_data_files(cfg, ['val', 'test'])


@pytest.mark.parametrize('changes', [
    dict(data_root='https://example.org/'),
    dict(ann_file='s3://bucket/a.json', data_prefix=dict()),
    dict(backend_args=dict(backend='petrel')),
    dict(ann_file='', data_prefix=dict(img='', seg=None)),
])
def test_what_is_not_on_the_disk_is_left_alone(cfg, changes):
    cfg.val_dataloader.dataset.update(changes)
    check_data_files(cfg, ['val'])


def test_absolute_paths_are_not_joined_with_the_root(cfg, tmp_path):
    dataset = cfg.val_dataloader.dataset
    dataset.ann_file = str(tmp_path / 'ann/val.json')
    dataset.data_root = '/nowhere'
    dataset.data_prefix = dict(img=str(tmp_path / 'images'))
    check_data_files(cfg, ['val'])
