"""The pipelines inside the data sets of a config, which may be wrapped and concatenated."""
from __future__ import annotations

from typing import Any, Iterator

from mmengine.config import Config

_EVALUATION = ('test_dataloader', 'val_dataloader')


def plain_datasets(dataset: Any) -> Iterator[dict]:
    """The data sets of a dataset config that wrap no other, each with a pipeline of its own."""
    if not isinstance(dataset, dict):
        return
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or ())]
    wrapped = [each for each in inner if isinstance(each, dict)]
    for each in wrapped:
        yield from plain_datasets(each)
    if not wrapped:
        yield dataset


def evaluation_pipeline(cfg: Config) -> list[dict]:
    """The pipeline that images go through when the detector of a config is evaluated.

    Looked for in ``test_dataloader`` and then in ``val_dataloader``; of data sets that are
    concatenated the first one counts.

    Raises:
        ValueError: Neither has a data set with a pipeline.
    """
    for name in _EVALUATION:
        for dataset in plain_datasets((cfg.get(name) or {}).get('dataset')):
            if dataset.get('pipeline'):
                return dataset['pipeline']
    raise ValueError(
        f'The config has no pipeline for evaluation: neither {" nor ".join(_EVALUATION)}'
        ' has a data set with one. Give a test_dataloader, such as test_dataloader=dict('
        "batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset="
        "dict(type='CocoDataset', ..., pipeline=test_pipeline)).")


def with_pipeline(dataset: dict, pipeline: list[dict]) -> dict:
    """A dataset config without its wrappers for repetition and mixing, with another pipeline."""
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    if 'datasets' in dataset:
        parts = [with_pipeline(each, pipeline) for each in dataset['datasets']]
        return {**dataset, 'datasets': parts}
    return {**dataset, 'pipeline': pipeline}
