"""Units of the streams, from what a trained detector computes on a few images."""
from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .capture import Captured
from .rules import Reader
from .storage import Streams, stream_format
from .values import Value

StreamUnits = Callable[[Streams, Reader], Mapping[Value, float]]


def measured_units(captured: Captured, images: Iterable[Tensor], bit_width: int) -> StreamUnits:
    """Units with which nothing seen on some images is clipped.

    Args:
        captured: The operators of the detector.
        images: Normalized images, (N, C, H, W) each; cut or padded to the size that was captured.
        bit_width: Bits of the streams.

    Raises:
        ValueError: There is no image.
    """

    def units(streams: Streams, reader: Reader) -> dict[Value, float]:
        members = streams.members()
        nodes = {value: node for node, value in reader.values.items()}
        wanted = {nodes[each] for group in members.values() for each in group}
        ranges = _ranges(captured, images, wanted)
        return {
            leader: max(_unit(each, *ranges[nodes[each]], bit_width) for each in group)
            for leader, group in members.items()
        }

    return units


def _unit(member: Value, low: float, high: float, bit_width: int) -> float:
    """The unit with which low..high are codes of a member."""
    form = stream_format(member, 1.0, bit_width)
    needed = max(high / form.qmax, low / form.qmin if form.qmin else 0.0)
    return max(needed, 2.0**-40)


def _ranges(captured: Captured, images: Iterable[Tensor],
            wanted: set[fx.Node]) -> dict[fx.Node, tuple[float, float]]:
    """Smallest and largest value of each node."""
    recorder = _Recorder(captured, wanted)
    size = next(node.meta['val'].shape for node in captured.graph.nodes
                if node.name == captured.image)[2:]  # yapf: disable
    for batch in images:
        for image in batch:
            recorder.see(_sized(image, *size)[None])
    if not recorder.ranges and wanted:
        raise ValueError('No image to calibrate skip and top-down connections with.')
    return recorder.ranges


def _sized(image: Tensor, height: int, width: int) -> Tensor:
    """An image (C, H, W) cut or padded by zeros to a size."""
    return F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))


class _Recorder(fx.Interpreter):

    def __init__(self, captured: Captured, wanted: set[fx.Node]) -> None:
        super().__init__(captured.program.graph_module)
        self.captured = captured
        self.by_name = {node.name: node for node in wanted}
        self.ranges: dict[fx.Node, tuple[float, float]] = {}

    @torch.no_grad()
    def see(self, image: Tensor) -> None:
        self.run(*(image if node.name == self.captured.image else self.captured.tensors[node.name]
                   for node in self.captured.graph.nodes if node.op == 'placeholder'))

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        key = self.by_name.get(node.name)
        if key is not None:
            low, high = self.ranges.get(key, (0.0, 0.0))
            self.ranges[key] = min(low, float(result.min())), max(high, float(result.max()))
        return result
