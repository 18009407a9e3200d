"""The feature maps of a pyramid, which say which level they are when they are taken out."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Iterable, Iterator

from torch import Tensor

from mmaqd.layers import MultiLevelModule


class Pyramid(Sequence):
    """Feature maps that name their level to the layers of a head when they are taken out.

    An iteration names the level of each map it gives, and none after the last; an index names that
    of its map, unless an iteration is under way, where it is a look at another level in passing.

    Args:
        feats: One feature map per level, each (N, C, H_i, W_i).
        layers: The layers that have a module per level.
        levels: Numbers of the levels, 0, 1, ... by default.
    """

    def __init__(self,
                 feats: Iterable[Tensor],
                 layers: Iterable[MultiLevelModule],
                 levels: Iterable[int] | None = None) -> None:
        self.feats = tuple(feats)
        self.layers = tuple(layers)
        self.levels = tuple(range(len(self.feats)) if levels is None else levels)
        self.is_iterated = False

    def name(self, level: int | None) -> None:
        """Let the layers work on a level, or on none."""
        for layer in self.layers:
            layer.level = level

    def __len__(self) -> int:
        return len(self.feats)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Pyramid(self.feats[index], self.layers, self.levels[index])
        if not self.is_iterated:
            self.name(self.levels[index])
        return self.feats[index]

    def __iter__(self) -> Iterator[Tensor]:
        self.is_iterated = True
        for level, feat in zip(self.levels, self.feats):
            self.name(level)
            yield feat
        self.is_iterated = False
        self.name(None)
