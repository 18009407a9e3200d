"""Multi-level batch normalization: own statistics for every pyramid level, behind shared convs."""
from __future__ import annotations

from typing import Any

import torch.nn as nn

from mmaqd.registry import MODELS

from .multi_level import MultiLevelModule


@MODELS.register_module()
class MultiLevelBN(MultiLevelModule):
    """One BatchNorm2d per pyramid level (multi-level BN of arXiv:2007.06919).

    The convs of a shared head see the features of all levels, whose statistics differ. Each level
    therefore keeps its own affine parameters and running statistics, as ``self[level]``. A
    checkpoint with a single BN at this place is copied to every level when it is loaded.

    Args:
        num_features: Number of channels, C.
        num_levels: Number of pyramid levels, at least 1.
        **kwargs: Passed to each level's normalization: ``eps``, ``momentum``, ``affine``, ...

    Shape:
        input and output (N, C, H, W).

    Raises:
        ValueError: ``num_levels`` is not a positive integer.
        RuntimeError: forward was called without a level.
    """

    _abbr_ = 'bn'
    norm_class = nn.BatchNorm2d

    def __init__(self, num_features: int, num_levels: int, **kwargs: Any) -> None:
        super().__init__(lambda: self.norm_class(num_features, **kwargs), num_levels)


@MODELS.register_module()
class MultiLevelSyncBN(MultiLevelBN):
    """:class:`MultiLevelBN` whose batch statistics are taken over all GPUs.

    Without distributed training each level works as an ordinary BatchNorm2d.
    """

    norm_class = nn.SyncBatchNorm
