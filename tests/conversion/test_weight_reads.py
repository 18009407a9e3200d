"""Weights that are read without calling their layer are found in the code that reads them."""
from __future__ import annotations

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads.tood_head import TaskDecomposition
from torch import Tensor, nn

from mmaqd.conversion.weight_reads import weights_read


class Reader(nn.Module):
    """Reads one weight, calls another conv, and looks at the dtype of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Sequential()
        self.read.inner = nn.Conv2d(3, 3, 1)
        self.called = nn.Conv2d(3, 3, 1)
        self.asked = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.called.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.read.inner.weight)
        return self.called(x).to(self.asked.weight.dtype)

    def penalty(self) -> Tensor:
        return self.called.weight.abs().sum()


class Heir(Reader):
    """Inherits what it reads."""


def test_a_weight_that_is_read_and_not_called() -> None:
    for model in (Reader(), nn.Sequential(Heir())):
        reader = next(each for each in model.modules() if isinstance(each, Reader))
        assert weights_read(model) == {reader.read.inner: type(reader).__name__}


def test_the_reduction_conv_of_tood() -> None:
    decomposition = TaskDecomposition(8, 4)
    assert weights_read(decomposition) == {decomposition.reduction_conv.conv: 'TaskDecomposition'}


def test_ordinary_modules_read_nothing() -> None:
    assert weights_read(nn.Sequential(ConvModule(3, 4, 1), nn.Linear(4, 4))) == {}
