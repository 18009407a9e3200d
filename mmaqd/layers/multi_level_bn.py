"""Multi-level batch normalization: own statistics for every pyramid level, behind shared convs."""
from __future__ import annotations

from typing import Any, Optional

import torch.nn as nn
from torch import Tensor

from mmaqd.registry import MODELS

_SHARED_KEYS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


@MODELS.register_module()
class MultiLevelBN(nn.ModuleList):
    """One BatchNorm2d per pyramid level (multi-level BN of arXiv:2007.06919).

    The convs of a shared head see the features of all levels, whose statistics differ. Each level
    therefore keeps its own affine parameters and running statistics, as ``self[level]``.

    The level is named by :attr:`level`, which the head sets before it runs a level (see
    :class:`mmaqd.models.MultiLevelHeadMixin`). It is never inferred from the order of the calls.

    A checkpoint with a single BN at this place (keys ``weight``, ``running_mean``, ...) is copied
    to every level when it is loaded.

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
        if not isinstance(num_levels, int) or num_levels < 1:
            raise ValueError(f'{type(self).__name__}: num_levels must be the number of pyramid '
                             f'levels, an integer of at least 1, but got {num_levels!r}.')
        super().__init__(self.norm_class(num_features, **kwargs) for _ in range(num_levels))
        self.level: Optional[int] = None

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels that have statistics of their own."""
        return len(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.level is None:
            raise RuntimeError(
                f'{type(self).__name__} was called without a pyramid level. It works in a head '
                'that names the level: use mmaqd.AQDRetinaHead or mmaqd.AQDFCOSHead, or add '
                'mmaqd.models.MultiLevelHeadMixin to your head.')
        return self[self.level](x)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any,
                              **kwargs: Any) -> None:
        for key in _SHARED_KEYS:
            shared = state_dict.pop(prefix + key, None)
            if shared is not None:
                for level in range(self.num_levels):
                    state_dict[f'{prefix}{level}.{key}'] = shared
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class MultiLevelSyncBN(MultiLevelBN):
    """:class:`MultiLevelBN` whose batch statistics are taken over all GPUs.

    Without distributed training each level works as an ordinary BatchNorm2d.
    """

    norm_class = nn.SyncBatchNorm
