"""The names of categories, from files of which most is not read."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmaqd.compat import category_names
from mmaqd.compat.category_names import coco_categories, voc_names

CATEGORIES = [dict(id=3, name='café'), dict(id=1, name='"quoted" [x]')]
NAMES = ['café', '"quoted" [x]']


def write(path: Path, content: object, **how: object) -> str:
    path.write_text(json.dumps(content, **how), encoding='utf-8')
    return str(path)


@pytest.mark.parametrize('ascii_only', [True, False])
@pytest.mark.parametrize('indent', [None, 4])
@pytest.mark.parametrize('first', [True, False])
def test_wherever_they_stand(tmp_path, ascii_only, indent, first):
    parts = [('categories', CATEGORIES), ('images', [dict(file_name='é.png')] * 9)]
    content = dict(parts if first else parts[::-1])
    path = write(tmp_path / 'a.json', content, ensure_ascii=ascii_only, indent=indent)
    assert coco_categories(path) == NAMES


def test_only_their_part_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(category_names.json, 'load', None)
    path = write(tmp_path / 'a.json', dict(categories=CATEGORIES, images=[1] * 100))
    assert coco_categories(path) == NAMES


def test_a_long_list(tmp_path, monkeypatch):
    monkeypatch.setattr(category_names, '_FIRST_BYTES', 10)
    assert coco_categories(write(tmp_path / 'a.json', dict(categories=CATEGORIES))) == NAMES


def test_the_key_elsewhere(tmp_path):
    info = dict(categories=['of an image'], text='{"categories": [{"name": "no"}]}')
    path = write(tmp_path / 'a.json', dict(info=info, categories=CATEGORIES))
    assert coco_categories(path) == NAMES
    path = write(tmp_path / 'b.json', dict(info=info['text'], categories=CATEGORIES))
    assert coco_categories(path) == NAMES


@pytest.mark.parametrize('text', [
    '', '{', '[]', '{"images": []}', '{"categories": [1]}', '{"categories": [{"id": 1}]}',
    '{"categories": null}'
])
def test_what_can_not_be_read_is_left_to_the_loading(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    assert coco_categories(str(tmp_path / 'a.json')) is None


def make_voc(folder: Path, *objects: list[str]) -> str:
    for index, names in enumerate(objects):
        inside = ''.join(f'<object><name>{name}</name><part><name>head</name></part></object>'
                         for name in names)
        (folder / f'{index}.xml').write_text(f'<annotation>{inside}</annotation>')
    (folder / 'all.txt').write_text('\n'.join(str(index) for index in range(len(objects))))
    return str(folder / 'all.txt')


def test_names_of_objects(tmp_path):
    ann_file = make_voc(tmp_path, ['cat', 'dog'], [], ['cow'], ['pig'])
    assert voc_names(ann_file, str(tmp_path), ['Cat']) == ['cat', 'dog', 'cow', 'pig']
    assert voc_names(ann_file, str(tmp_path), ['cow', 'cat']) == ['cat', 'dog', 'cow']


def test_without_objects_or_files(tmp_path):
    ann_file = make_voc(tmp_path, [], ['cat'], ['dog'])
    (tmp_path / '1.xml').unlink()
    (tmp_path / '2.xml').write_text('<annotation>')
    assert voc_names(ann_file, str(tmp_path), ['cat']) is None
