"""A look at whether the classes of a config are those of its annotations, before anything is built.

MMDetection leaves out the boxes of categories that it does not know, without a word.
"""
from __future__ import annotations

import logging
import os
import os.path as osp
from difflib import get_close_matches
from typing import Any, Iterator, NamedTuple, Sequence

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.logging import print_log

from .category_names import coco_categories, voc_names
from .data_files import local_datasets

_SHOWN = 12  # names of a list in a message
# What a subclass may change of how annotations are read.
_READERS = ('load_data_list', 'parse_data_info', '_parse_instance_info')


class Labels(NamedTuple):
    """What a dataset makes of its annotations.

    Attributes:
        key: Of the dataset in the config.
        ann_file: Path of its annotations.
        classes: Names that it is told.
        categories: Names in the annotations; of VOC's only as many as it took to find the classes.
        by_file: Whether it numbers the classes as the file does, rather than as it is told.
        told: Whether the config names the classes, rather than the type of the dataset.
    """

    key: str
    ann_file: str
    classes: tuple[str, ...]
    categories: tuple[str, ...]
    by_file: bool
    told: bool

    @property
    def labels(self) -> dict[str, int]:
        """The labels of the classes that the annotations have."""
        if not self.by_file:
            pairs = enumerate(self.classes)
            return {name: label for label, name in pairs if name in self.categories}
        found = [name for name in self.categories if name in self.classes]
        return {name: label for label, name in enumerate(found)}

    @property
    def missing(self) -> list[str]:
        """The classes that the annotations do not have."""
        return [name for name in self.classes if name not in self.categories]


def check_classes(cfg: Config, splits: Sequence[str] = ('train', 'val', 'test')) -> None:
    """Check that the classes of a config occur in its annotations, and that its heads have as many.

    Looked at are ``CocoDataset`` and ``XMLDataset`` (and VOC's), inside wrappers too, with files on
    the local disk; other datasets read their annotations in ways of their own. The files must be
    there, see :func:`check_data_files`. Classes of which only some are missing are a warning.

    Args:
        cfg: The config of a run.
        splits: Those of ``'train'``, ``'val'`` and ``'test'`` that the run needs.

    Raises:
        ValueError: A dataset finds none of its classes, two datasets give one class different
            labels, or a head has fewer classes than a dataset.
    """
    found = [
        labels for split in splits for key, dataset in local_datasets(cfg, split)
        if (labels := _labels(key, dataset))
    ]
    _refuse_unknown([labels for labels in found if not labels.labels])
    _refuse_contradictions(found)
    doubts = [*_check_heads(cfg, found)]
    doubts += {labels.ann_file: _doubts(labels) for labels in found}.values()  # test is often val
    for doubt in filter(None, doubts):
        if os.environ.get('RANK', '0') == '0':
            print_log(doubt, 'current', logging.WARNING)


def _labels(key: str, dataset: dict) -> Labels | None:
    """What a dataset makes of its annotations; None if that is not known."""
    ann_file = osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    kind = _type_of(dataset)
    if kind is None or not osp.isfile(ann_file):
        return None
    told = 'classes' in (dataset.get('metainfo') or {})
    classes = dataset['metainfo']['classes'] if told else kind.METAINFO.get('classes')
    if not classes:
        return None
    classes = _as_names(f'{key}.metainfo.classes', classes)
    by_file = hasattr(kind, 'COCOAPI')
    names = coco_categories(ann_file) if by_file else _voc_names(dataset, ann_file, classes)
    return names if names is None else Labels(key, ann_file, classes, tuple(names), by_file, told)


def _type_of(dataset: dict) -> type | None:
    """The type of a dataset that reads its annotations as ``CocoDataset`` or ``XMLDataset`` does.
    """
    from mmdet.datasets import CocoDataset, XMLDataset
    from mmdet.registry import DATASETS
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    for base in (CocoDataset, XMLDataset):
        own = [getattr(kind, name, None) is getattr(base, name, None) for name in _READERS]
        if isinstance(kind, type) and issubclass(kind, base) and all(own):
            return kind
    return None


def _as_names(key: str, classes: Any) -> tuple[str, ...]:
    """The names of the classes, from the file that has one in each line where it is one."""
    if not isinstance(classes, str):
        return tuple(classes)
    if osp.isfile(classes):
        return tuple(list_from_file(classes))
    raise ValueError(
        f'{key} is the string {classes!r}, and no file of this name lists the classes. '
        f'For one class write a tuple, with the comma: ({classes!r},).')


def _voc_names(dataset: dict, ann_file: str, classes: tuple[str, ...]) -> list[str] | None:
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    root = osp.join(dataset.get('data_root') or '', prefix)
    return voc_names(ann_file, osp.join(root, dataset.get('ann_subdir', 'Annotations')), classes)


def _refuse_unknown(unknown: list[Labels]) -> None:
    if not unknown:
        return
    lines = '\n'.join(f'  {_key(labels)}: {_shown(labels.classes)}\n'
                      f'  {labels.ann_file}: {_shown(labels.categories)}' for labels in unknown)
    raise ValueError(
        f'The annotations have none of the classes of the config, so no box would be used:\n{lines}'
        f'\nSpell the classes as the annotations do, upper and lower case included: metainfo=dict('
        f'classes={_tuple(unknown[0].categories)}), in each split, and num_classes of the head as '
        'many.')


def _key(labels: Labels) -> str:
    """Where the classes stand."""
    key = f'{labels.key}.metainfo.classes'
    return key if labels.told else f'{key} (not given, so those of the type of the dataset)'


def _refuse_contradictions(found: list[Labels]) -> None:
    """Refuse a class that has a label in one dataset and another one in the next."""
    first: dict[str, tuple[int, Labels]] = {}
    for labels in found:
        for name, label in labels.labels.items():
            before, where = first.setdefault(name, (label, labels))
            if before != label:
                raise ValueError(
                    f'The class {name!r} would have the label {before} in {where.key} '
                    f'({where.ann_file}) and {label} in {labels.key} ({labels.ann_file}): '
                    'CocoDataset numbers the classes in the order of the categories in its file. '
                    'Give both files the same categories in the same order, and both datasets the '
                    'same metainfo.classes.')


def _check_heads(cfg: Config, found: list[Labels]) -> Iterator[str]:
    """Refuse a head with fewer classes than the data have, and doubt one with more."""
    by_number = {len(labels.classes): labels for labels in reversed(found)}
    for key, num_classes in _heads(cfg.get('model'), 'model'):
        for expected, labels in by_number.items():
            if num_classes == expected:
                continue
            message = (f'{key}={num_classes}, but {_key(labels)} has {expected} classes '
                       f'({_shown(labels.classes)}). ')
            remedy = f'Set {key}={expected}, or name the classes that the detector is to know.'
            if num_classes < expected:
                raise ValueError(f'{message}Objects of the last {expected - num_classes} would be '
                                 f'taken for background. {remedy}')
            yield f'{message}The other outputs have no name. {remedy}'


def _heads(model: Any, key: str) -> Iterator[tuple[str, int]]:
    """The numbers of classes of the heads that predict boxes, each with its key."""
    if isinstance(model, (list, tuple)):
        for index, part in enumerate(model):
            yield from _heads(part, f'{key}.{index}')
    elif isinstance(model, dict):
        for name in ('module', 'roi_head', 'bbox_head'):
            yield from _heads(model.get(name), f'{key}.{name}')
        if key.split('.bbox_head')[0] != key and isinstance(model.get('num_classes'), int):
            yield f'{key}.num_classes', model['num_classes']


def _doubts(labels: Labels) -> str:
    """What is said of classes that are missing or in another order; '' if nothing is."""
    others = [name for name in labels.categories if name not in labels.classes]
    text = ''
    if labels.missing and (labels.by_file or others):
        text = (f'{_key(labels)}: {labels.ann_file} does not have {_shown(labels.missing)}'
                f'{_spelled(labels.missing, others)}. ')
    numbered = list(labels.labels)
    if labels.by_file and numbered != list(labels.classes[:len(numbered)]):
        text += (f'{labels.key}: the labels 0, 1, ... are {_shown(numbered)}, in the order of '
                 f'the file, but are called {_shown(labels.classes)} in pictures and exported '
                 'files. ')
    if text:
        text += (f'It has {_shown(labels.categories)}: give metainfo.classes these names, in this '
                 'order, or the ones of them that are wanted.')
    return text


def _spelled(missing: list[str], others: list[str]) -> str:
    """How the annotations seem to spell the classes that they do not have."""
    by_case = {name.casefold(): name for name in others}
    pairs = {
        name: by_case[match[0]]
        for name in missing if (match := get_close_matches(name.casefold(), by_case, n=1))
    }
    return ', but ' * bool(pairs) + ', '.join(f'{there!r} (for {name!r})'
                                              for name, there in pairs.items())


def _shown(names: Sequence[str]) -> str:
    text = ', '.join(map(repr, names[:_SHOWN])) or 'none'
    return text if len(names) <= _SHOWN else f'{text}, ... ({len(names)} in all)'


def _tuple(names: Sequence[str]) -> str:
    return str(tuple(names)) if len(names) <= _SHOWN else '(...)'
