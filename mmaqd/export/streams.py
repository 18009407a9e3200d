"""Codes of the streams: trained, or from what a detector computes on a few images."""
from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .capture import Captured
from .rules import Reader
from .storage import StreamCodes, Streams, stream_format
from .values import Value

# Members of each stream by the one that stands for them, to the stream's unit.
StreamUnits = Callable[[Mapping[Value, list[Value]], Reader], Mapping[Value, float]]


def stream_codes(streams: Streams, reader: Reader, measured: StreamUnits,
                 bit_width: int) -> dict[Value, StreamCodes]:
    """Codes of each stream by the member that stands for it: as trained, else measured.

    Args:
        streams: The streams of a network.
        reader: What its values were read with.
        measured: Gives the units of those that were not trained.
        bit_width: Bits of these.

    Raises:
        ValueError: Two streams that were trained apart are one.
    """
    members = streams.members()
    trained = {leader: _trained(group, reader) for leader, group in members.items()}
    others = {leader: members[leader] for leader, codes in trained.items() if codes is None}
    codes = {leader: each for leader, each in trained.items() if each is not None}
    for leader, unit in (measured(others, reader) if others else {}).items():
        codes[leader] = StreamCodes(unit, bit_width)
    return codes


def _trained(group: list[Value], reader: Reader) -> StreamCodes | None:
    """The codes that a stream was trained in, if it was."""
    found = {reader.trained[each] for each in group if each in reader.trained}
    if len(found) > 1:
        raise ValueError(f'Values of {len(found)} streams that were trained apart are added: '
                         f'{", ".join(sorted(map(str, found)))}. Train without '
                         'model.quantization.stream; streams are calibrated then.')
    return next(iter(found), None)


def measured_units(captured: Captured, images: Iterable[Tensor], bit_width: int) -> StreamUnits:
    """Units with which nothing seen on some images is clipped.

    Args:
        captured: The operators of the detector.
        images: Normalized images, (N, C, H, W) each; cut or padded to the size that was captured.
        bit_width: Bits of the streams.

    Raises:
        ValueError: There is no image.
    """

    def units(members: Mapping[Value, list[Value]], reader: Reader) -> dict[Value, float]:
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
    form = stream_format(member, StreamCodes(1.0, bit_width))
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
