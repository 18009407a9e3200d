"""The names that annotation files give to their categories, read without loading the boxes."""
from __future__ import annotations

import json
import os.path as osp
import re
from mmap import ACCESS_READ, mmap
from typing import Collection
from xml.etree import ElementTree

_KEY = b'"categories"'
_LIST = re.compile(rb'\s*:\s*(?=\[)')
_FIRST_BYTES = 1 << 20  # more than any list of categories takes, far less than the boxes


def coco_categories(path: str) -> list[str] | None:
    """The names of the categories of a file in COCO's format, in its order.

    A file of hundreds of megabytes is searched for its list of categories, not read.

    Returns:
        None if it has no such list, which loading the data then reports.
    """
    try:
        categories = _find_categories(path)
        return [category['name'] for category in categories]
    except (ValueError, TypeError, KeyError):
        return None


def _find_categories(path: str) -> list:
    with open(path, 'rb') as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        places = _places(content)
        if len(places) == 1:
            decoder = json.JSONDecoder()
            for end in (places[0] + _FIRST_BYTES, len(content)):
                text = content[places[0]:end].decode(errors='ignore')
                try:
                    return decoder.raw_decode(text)[0]
                except ValueError:
                    continue
    with open(path, encoding='utf-8') as file:
        return json.load(file)['categories']


def _places(content: mmap) -> list[int]:
    """Where the first two values begin that are lists under the key."""
    places, start = [], content.find(_KEY)
    while start >= 0 and len(places) < 2:
        behind = start + len(_KEY)
        match = _LIST.match(content, behind)
        if match and content[start - 1:start] != b'\\':
            places.append(match.end())
        start = content.find(_KEY, behind)
    return places


def voc_names(ann_file: str, folder: str, sought: Collection[str]) -> list[str] | None:
    """The names of the objects of a split in VOC's format, until all that are sought were found.

    Args:
        ann_file: File with the name of an image in each line.
        folder: The folder of their XML files.
        sought: Names after which there is no need to go on.

    Returns:
        None if the split has no object.
    """
    found: dict[str, None] = {}
    with open(ann_file, encoding='utf-8') as lines:
        for line in lines:
            path = osp.join(folder, line.rstrip('\n\r') + '.xml')
            if osp.isfile(path):  # loading the data says which file is missing
                found.update(dict.fromkeys(_names_in(path)))
            if found.keys() >= set(sought):
                break
    return list(found) or None


def _names_in(path: str) -> list[str]:
    try:
        return [name.text or '' for name in ElementTree.parse(path).iterfind('object/name')]
    except ElementTree.ParseError:
        return []
