"""What all distillation losses share: which module they look at, and how its outputs come."""
from __future__ import annotations

from typing import Any

import torch.nn as nn
from torch import Tensor


class DistillationLoss(nn.Module):
    """Base of the losses that compare what one module of student and teacher returned.

    A subclass computes in :meth:`forward`. It has no parameters of its own: the losses are no part
    of the detector, so nothing would train or save them.

    Args:
        module: Name of the module in both detectors, e.g. ``'neck'``.
        loss_weight: Factor of the loss, at least 0.

    Raises:
        ValueError: ``loss_weight`` is negative.
    """

    def __init__(self, module: str, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not loss_weight >= 0:
            raise ValueError(f'{type(self).__name__}: loss_weight must not be negative, but got '
                             f'{loss_weight!r}.')
        self.module = module
        self.loss_weight = loss_weight

    def check(self, module: nn.Module) -> None:
        """Raise a ValueError if the outputs of ``module`` are not what the loss is made for."""

    def forward(self, student: list[Any], teacher: list[Any]) -> dict[str, Tensor]:
        """Compare the outputs.

        Args:
            student: What the module returned in the forward pass of the student, an item for each
                time that it was called.
            teacher: The same of the teacher, without gradients.

        Returns:
            Scalar losses by name; the names contain ``loss``, so that they are summed.
        """
        raise NotImplementedError

    def _check_same_shapes(self, student: list[Tensor], teacher: list[Tensor]) -> None:
        shapes = [[tuple(each.shape) for each in side] for side in (student, teacher)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f'{type(self).__name__}: {self.module} gives outputs of the shapes {shapes[0]} in '
                f'the student and {shapes[1]} in the teacher. Name a module whose outputs have the '
                'same shapes in both, or take another teacher.')
