"""A look for the annotation files and image folders of a config before anything is built."""

from __future__ import annotations

import os
import os.path as osp
from typing import Any, Iterator, NamedTuple, Sequence

from mmengine.config import Config


class DataFile(NamedTuple):
    """A file or folder that a config names.

    Attributes:
        key: Its dotted key.
        path: What that comes to.
        root: The ``data_root`` that it is looked for in, if there is one.
    """

    key: str
    path: str
    root: str = ''

    @property
    def remedy(self) -> str:
        """The option that says where it is: the root where that is missing, else its own key."""
        if self.root and not osp.exists(self.root):
            owner = self.key.split('.ann_file')[0].split('.data_prefix')[0]
            return f'{owner}.data_root=/where/they/are'
        where = f'path/below/{self.root}' if self.root else '/where/it/is'
        return f'{self.key}={where}'


def check_data_files(cfg: Config, splits: Sequence[str] = ('train', 'val', 'test')) -> None:
    """Check that the data of some splits are where a config says.

    Looked at are ``ann_file`` and ``data_prefix`` of the datasets in ``{split}_dataloader``, inside
    wrappers too, and ``ann_file`` of ``{split}_evaluator``. Datasets with a file backend other than
    the local disk are left alone.

    Args:
        cfg: The config of a run.
        splits: Those of ``'train'``, ``'val'`` and ``'test'`` that the run needs.

    Raises:
        FileNotFoundError: Something is missing. The message lists every key with its path and says
            what to do.
    """
    missing = [file for file in _data_files(cfg, splits) if not osp.exists(file.path)]
    if not missing:
        return
    lines = '\n'.join(f'  {file.key}: {file.path}' for file in missing)
    raise FileNotFoundError(
        f'Data that the config names are missing (relative paths are looked for from '
        f'{os.getcwd()}):\n{lines}\n'
        f'Link the data to where they are expected (ln -s /where/they/are data/NAME), or set the '
        f'keys, for example --cfg-options {missing[0].remedy} . The ann_file of an evaluator is '
        'not joined with data_root: set it as well.')


def local_datasets(cfg: Config, split: str) -> Iterator[tuple[str, dict]]:
    """The datasets of a split on the local disk, wrappers and what they wrap.

    Yields:
        The dotted key of a dataset, and its config.
    """
    loader = cfg.get(f'{split}_dataloader') or {}
    yield from _nested_datasets(loader.get('dataset'), f'{split}_dataloader.dataset')


def _nested_datasets(dataset: Any, key: str) -> Iterator[tuple[str, dict]]:
    if not isinstance(dataset, dict) or not _is_local(dataset):
        return
    yield from _nested_datasets(dataset.get('dataset'), f'{key}.dataset')
    for index, inner in enumerate(dataset.get('datasets') or ()):
        yield from _nested_datasets(inner, f'{key}.datasets.{index}')
    yield key, dataset


def _data_files(cfg: Config, splits: Sequence[str]) -> Iterator[DataFile]:
    """Yield the files and folders that the splits need."""
    for split in splits:
        for key, dataset in local_datasets(cfg, split):
            yield from _dataset_files(dataset, key)
        yield from _evaluator_files(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')


def _dataset_files(dataset: dict, key: str) -> Iterator[DataFile]:
    """Yield the files that a dataset itself names."""
    root = dataset.get('data_root') or ''
    names = {'ann_file': dataset.get('ann_file')}
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        names[f'data_prefix.{name}'] = prefix
    for name, value in names.items():
        if isinstance(value, str) and value and '://' not in value + root:
            yield DataFile(f'{key}.{name}', osp.join(root, value), root)


def _evaluator_files(evaluator: Any, key: str) -> Iterator[DataFile]:
    """Yield the annotation files of an evaluator, which may be a list of metrics."""
    if isinstance(evaluator, (list, tuple)):
        for index, metric in enumerate(evaluator):
            yield from _evaluator_files(metric, f'{key}.{index}')
    elif isinstance(evaluator, dict) and _is_local(evaluator):
        ann_file = evaluator.get('ann_file')
        if isinstance(ann_file, str) and ann_file and '://' not in ann_file:
            yield DataFile(f'{key}.ann_file', ann_file)


def _is_local(node: dict) -> bool:
    """Whether the files of a dataset or metric are read from the local disk."""
    backend = node.get('backend_args') or {}
    return backend.get('backend', 'local') in ('local', 'disk')
