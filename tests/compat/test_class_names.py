"""Classes of a config that are not those of its annotations: told by name, before building."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmaqd.compat import check_classes
from mmaqd.engine import launch
from tests.helpers.data import CLASSES, make_coco, make_own, run_cfg

SPLITS = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('classes') / 'data')


@pytest.fixture(scope='module')
def voc_data(tmp_path_factory) -> Path:
    return make_own(tmp_path_factory.mktemp('classes') / 'voc', 'voc')


@pytest.fixture
def cfg(data, tmp_path) -> Config:
    return run_cfg(data, tmp_path / 'work')


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The warnings."""
    texts: list[str] = []
    monkeypatch.setattr('mmaqd.compat.class_names.print_log', lambda text, *_: texts.append(text))
    return texts


def dataset(cfg: Config, split: str) -> dict:
    return cfg[f'{split}_dataloader'].dataset


def name_classes(cfg: Config, *classes: str, splits: tuple[str, ...] = SPLITS) -> None:
    for split in splits:
        dataset(cfg, split)['metainfo'] = dict(classes=classes)
    cfg.model.bbox_head.num_classes = len(classes)


def use_voc(cfg: Config, folder: Path) -> None:
    for split in SPLITS:
        dataset(cfg, split).update(
            type='XMLDataset',
            data_root=str(folder),
            ann_file='ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root=''))


def rename(data: Path, to: Path, *names: str) -> str:
    """Write the annotations with other categories, in this order."""
    content = json.loads((data / 'annotations.json').read_text())
    content['categories'] = [dict(id=index, name=name) for index, name in enumerate(names)]
    to.write_text(json.dumps(content))
    return str(to)


def test_classes_of_the_annotations(cfg, voc_data, said):
    check_classes(cfg)
    use_voc(cfg, voc_data)
    check_classes(cfg)
    assert said == []


@pytest.mark.parametrize('split', SPLITS)
def test_classes_spelled_otherwise_are_refused(cfg, data, split):
    name_classes(cfg, 'Dark', 'Grey', 'Light', splits=(split, ))
    with pytest.raises(ValueError) as error:
        check_classes(cfg)
    text = str(error.value)
    assert f"  {split}_dataloader.dataset.metainfo.classes: 'Dark', 'Grey', 'Light'\n" in text
    assert f"  {data / 'annotations.json'}: 'dark', 'grey', 'light'\n" in text
    assert f'metainfo=dict(classes={CLASSES})' in text
    check_classes(cfg, [each for each in SPLITS if each != split])


def test_all_splits_are_in_one_error(cfg):
    name_classes(cfg, 'Dark', 'Grey', 'Light')
    with pytest.raises(ValueError) as error:
        check_classes(cfg)
    assert all(f'{split}_dataloader.dataset.metainfo.classes' in str(error.value)
               for split in SPLITS)


def test_voc(cfg, voc_data):
    use_voc(cfg, voc_data)
    name_classes(cfg, 'Dark', 'Grey', 'Light')
    with pytest.raises(ValueError, match=r"train.txt: '(dark|grey|light)', '"):
        check_classes(cfg)


def test_wrapped_and_concatenated(cfg):
    inner = dataset(cfg, 'train')
    wrong = {**inner, 'metainfo': dict(classes=('a', 'b', 'c'))}
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[inner, wrong]))  # yapf: disable
    with pytest.raises(ValueError, match=r"dataset\.dataset\.datasets\.1\.metainfo\.classes: 'a'"):
        check_classes(cfg)


def test_forgotten_classes_are_those_of_the_type(cfg):
    dataset(cfg, 'val').pop('metainfo')
    with pytest.raises(ValueError, match=r"\(not given, so those of the type.*'person', .*80 in"):
        check_classes(cfg)


def test_one_class_without_its_comma(cfg):
    dataset(cfg, 'train')['metainfo'] = dict(classes=('dark'))
    with pytest.raises(ValueError, match=r"the string 'dark'.*\('dark',\)"):
        check_classes(cfg)


def test_a_file_with_the_classes(cfg, tmp_path, said):
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    dataset(cfg, 'train')['metainfo'] = dict(classes=str(tmp_path / 'classes.txt'))
    check_classes(cfg)
    assert said == []


def test_some_that_are_missing_are_a_warning(cfg, said):
    name_classes(cfg, 'dark', 'Grey', 'light')
    check_classes(cfg)
    text, = said
    assert "does not have 'Grey', but 'grey' (for 'Grey')" in text
    assert "the labels 0, 1, ... are 'dark', 'light'" in text


def test_some_that_are_missing_in_voc(cfg, voc_data, said):
    use_voc(cfg, voc_data)
    name_classes(cfg, 'dark', 'Grey', 'light')
    check_classes(cfg)
    text, = said
    assert "but 'grey' (for 'Grey')" in text and 'labels' not in text


def test_a_rare_class_that_a_voc_split_lacks_is_no_mistake(cfg, voc_data, said):
    use_voc(cfg, voc_data)
    name_classes(cfg, *CLASSES, 'rare')
    check_classes(cfg)
    assert said == []


def test_some_of_the_categories_are_enough(cfg, said):
    name_classes(cfg, 'grey')
    check_classes(cfg)
    assert said == []


def test_another_order_is_a_warning(cfg, said):
    name_classes(cfg, 'grey', 'dark', 'light')
    check_classes(cfg)
    text, = said
    assert "are 'dark', 'grey', 'light', in the order of the file, but are called 'grey'" in text


def test_files_that_number_the_classes_differently(cfg, data, tmp_path):
    dataset(cfg, 'val').ann_file = rename(data, tmp_path / 'val.json', 'light', 'grey', 'dark')
    with pytest.raises(ValueError) as error:
        check_classes(cfg, ('train', 'val'))
    text = str(error.value)
    assert "'light' would have the label 2 in train_dataloader.dataset" in text
    assert f"and 0 in val_dataloader.dataset ({tmp_path / 'val.json'})" in text


def test_a_head_with_too_few_classes(cfg):
    cfg.model.bbox_head.num_classes = 2
    with pytest.raises(ValueError, match=r'model\.bbox_head\.num_classes=2, but .* has 3 classes'):
        check_classes(cfg)


def test_a_head_with_too_many_classes_is_a_warning(cfg, said):
    cfg.model.bbox_head.num_classes = 80
    check_classes(cfg)
    text, = said
    assert text.startswith('model.bbox_head.num_classes=80, but ')


def test_heads_in_a_list_and_in_a_wrapper(cfg):
    heads = [dict(num_classes=3), dict(num_classes=2)]
    cfg.model = dict(module=dict(roi_head=dict(bbox_head=heads)))
    with pytest.raises(ValueError, match=r'model\.module\.roi_head\.bbox_head\.1\.num_classes=2'):
        check_classes(cfg)


@pytest.mark.parametrize('changes', [
    dict(type='LVISV1Dataset'),
    dict(type='NoSuchDataset'),
    dict(backend_args=dict(backend='petrel')),
    dict(ann_file='no/such.json'),
])
def test_what_reads_in_its_own_way_is_left_alone(cfg, said, changes):
    dataset(cfg, 'val').update(metainfo=dict(classes=('a', )), **changes)
    check_classes(cfg, ('val', ))
    assert said == []


def test_training_and_testing_look_before_building(cfg, tmp_path):
    name_classes(cfg, 'Dark', 'Grey', 'Light')
    cfg.model.type = 'NoSuchDetector'
    cfg.dump(tmp_path / 'config.py')
    for run in (launch.train, lambda config: launch.test(config, 'no/such.pth')):
        with pytest.raises(ValueError, match='none of the classes'):
            run(str(tmp_path / 'config.py'))


def test_the_warning_is_logged_once_of_several_processes(cfg, capsys, monkeypatch):
    MMLogger.get_instance('classes', log_level='INFO')
    cfg.model.bbox_head.num_classes = 80
    for rank, times in (('1', 0), ('0', 1)):
        monkeypatch.setenv('RANK', rank)
        check_classes(cfg)
        out, err = capsys.readouterr()
        assert (out + err).count('num_classes=80') == times
