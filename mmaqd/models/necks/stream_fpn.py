"""FPN whose top-down path is one stream, and whose outputs are another."""
from __future__ import annotations

from typing import Iterable

import torch.nn.functional as F
from mmdet.models.necks import FPN
from torch import Tensor, nn

from mmaqd.quantizers import StreamQuantizer


class StreamFPN(FPN):
    """FPN that adds in the integers of a stream; made by :meth:`from_fpn`.

    Attributes:
        stream: Quantizes the laterals and their sums.
        out_stream: Quantizes the outputs of all levels, which several convs read.
    """

    stream: StreamQuantizer
    out_stream: StreamQuantizer

    @classmethod
    def from_fpn(cls, fpn: FPN, stream: StreamQuantizer, out_stream: StreamQuantizer) -> StreamFPN:
        """What adds the laterals of ``fpn`` in a stream, with its very layers and hooks."""
        made = cls.__new__(cls)
        made.__dict__.update(fpn.__dict__)
        made.stream, made.out_stream = stream, out_stream
        return made

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As upstream's.

        Args:
            inputs: The backbone's feature maps, (N, C_i, H_i, W_i) each.

        Returns:
            ``num_outs`` feature maps.
        """
        laterals = self._top_down([
            self.stream(conv(x), nonnegative=is_rectified(conv))
            for conv, x in zip(self.lateral_convs, inputs[self.start_level:])
        ])
        outs = [self._out(conv, lateral) for conv, lateral in zip(self.fpn_convs, laterals)]
        sources = dict(
            on_input=inputs[self.backbone_end_level - 1],
            on_lateral=laterals[-1],
            on_output=outs[-1])
        outs.extend(self._extra_levels(sources.get(self.add_extra_convs), outs[-1], len(outs)))
        return tuple(outs)

    def _out(self, conv: nn.Module, x: Tensor) -> Tensor:
        return self.out_stream(conv(x), nonnegative=is_rectified(conv))

    def _top_down(self, laterals: list[Tensor]) -> list[Tensor]:
        """Add to each lateral what lies above it, enlarged."""
        nonnegative = all(is_rectified(conv) for conv in self.lateral_convs)
        for low in reversed(range(len(laterals) - 1)):
            size = {} if 'scale_factor' in self.upsample_cfg else dict(size=laterals[low].shape[2:])
            above = F.interpolate(laterals[low + 1], **size, **self.upsample_cfg)
            laterals[low] = self.stream(laterals[low] + above, nonnegative=nonnegative)
        return laterals

    def _extra_levels(self, source: Tensor | None, last: Tensor, made: int) -> Iterable[Tensor]:
        """Levels above the backbone's, from ``source`` or, without convs, from ``last``."""
        for level in range(made, self.num_outs):
            if source is None:
                last = F.max_pool2d(last, 1, stride=2)
            else:
                rectify = self.relu_before_extra_convs and level > made
                source = last = self._out(self.fpn_convs[level],
                                          F.relu(source) if rectify else source)
            yield last


def is_rectified(conv: nn.Module) -> bool:
    """Whether a ``ConvModule`` ends with a ReLU."""
    return conv.with_activation and isinstance(conv.activate, nn.ReLU)
