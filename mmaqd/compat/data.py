"""A look at the data of a config before anything is built."""
from __future__ import annotations

from typing import Sequence

from mmengine.config import Config

from .class_names import check_classes
from .data_files import check_data_files


def check_data(cfg: Config, splits: Sequence[str] = ('train', 'val', 'test')) -> None:
    """Check that the data of some splits are there, and that they have the classes of the config.

    Args:
        cfg: The config of a run.
        splits: Those of ``'train'``, ``'val'`` and ``'test'`` that the run needs.

    Raises:
        FileNotFoundError: Files or folders are missing, see :func:`check_data_files`.
        ValueError: The classes can't be right, see :func:`check_classes`.
    """
    check_data_files(cfg, splits)
    check_classes(cfg, splits)
