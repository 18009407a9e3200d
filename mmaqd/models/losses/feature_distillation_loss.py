"""Distillation of features, whatever their scale."""
from __future__ import annotations

from typing import Any, Iterator

import torch
from torch import Tensor

from mmaqd.registry import MODELS

from .distillation_loss import DistillationLoss

_EPS = 1e-6


@MODELS.register_module()
class FeatureDistillationLoss(DistillationLoss):
    """1 - r, r the correlation of a channel in student and teacher (PKD, arXiv:2207.02039).

    Each channel of each feature map is brought to mean 0 and variance 1 over the batch, in student
    and teacher; half the mean squared difference of the two is 1 - r. So neither the scale nor the
    offset of a channel matters, which the next conv undoes anyway. The result is the mean over
    channels and feature maps, in 0..2.

    Args:
        module: Name of the module whose outputs, (N, C, H, W) each, are compared; usually the
            ``'neck'``.
        loss_weight: Factor of the loss, at least 0.

    Returns:
        ``loss_distill_<module>``.

    Raises:
        ValueError: The shapes differ between student and teacher, or the outputs are no feature
            maps.
    """

    def __init__(self, module: str = 'neck', loss_weight: float = 1.0) -> None:
        super().__init__(module, loss_weight)

    def forward(self, student: list[Any], teacher: list[Any]) -> dict[str, Tensor]:
        students, teachers = list(_tensors(student)), list(_tensors(teacher))
        self._check_same_shapes(students, teachers)
        if not all(each.dim() == 4 for each in students):
            raise ValueError(
                f'{type(self).__name__}: {self.module} must give feature maps (N, C, H, W), but '
                f'gives the shapes {[tuple(each.shape) for each in students]}.')
        distances = [_distance(*pair) for pair in zip(students, teachers)]
        name = f'loss_distill_{self.module.replace(".", "_")}'
        return {name: self.loss_weight * torch.stack(distances).mean()}


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for each in outputs:
            yield from _tensors(each)


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    return (_standardized(student) - _standardized(teacher)).square().mean() / 2


def _standardized(x: Tensor) -> Tensor:
    # The epsilon is for the channels that a ReLU leaves at zero everywhere.
    var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0, keepdim=True)
    return (x.float() - mean) * torch.rsqrt(var + _EPS)
