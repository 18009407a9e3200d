"""How a detector's image becomes the integers that an integer network reads."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn as nn


def integer_mean(detector: nn.Module, channels: int = 3) -> np.ndarray:
    """The mean that the data preprocessor of a detector subtracts, int64 (C,).

    Raises:
        ValueError: It is no integer, or the image is divided by a std: the first conv would not
            read integers.
    """
    preprocessor = detector.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False):
        return np.zeros(channels, np.int64)
    mean, std = (torch.as_tensor(getattr(preprocessor, name)).double().flatten().cpu().numpy()
                 for name in ('mean', 'std'))  # yapf: disable
    _check(mean, std)
    return mean.astype(np.int64)


def _check(mean: Any, std: Any) -> None:
    if (mean != np.round(mean)).any() or (std != 1).any() or mean.min() < 0 or mean.max() > 255:
        raise ValueError(
            'model.data_preprocessor: an integer network reads the 8-bit image as it is, so mean '
            f'must be integers of 0..255 and std 1, but got {mean.tolist()} and {std.tolist()}. '
            'Train with integers (mmaqd.FoldInputStd loads an ImageNet checkpoint that expects a '
            'std).')
