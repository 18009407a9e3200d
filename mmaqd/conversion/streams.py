"""Give a detector streams: integers of one unit that its additions are computed in."""
from __future__ import annotations

from typing import Iterator

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.necks import FPN
from torch import Tensor, nn

from mmaqd.models.necks import StreamFPN
from mmaqd.quantizers import StreamQuantizer


class _ToStream:
    """A hook that brings what a module gives into a stream; an object, as models are copied."""

    def __init__(self, owner: nn.Module, nonnegative: bool) -> None:
        # Its attribute is read in each call: in a calibration an observer stands in there.
        self.owner, self.nonnegative = owner, nonnegative

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return self.owner.stream(output, self.nonnegative)


def add_streams(model: nn.Module, bit_width: int = 8) -> list[str]:
    """Let the skip connections of each ResNet and the top-down path of each FPN be streams.

    A stage of a ResNet has one stream: what its blocks add, and their sums. So has an FPN.

    Args:
        model: A float or low-bit model; changed in place.
        bit_width: Bits of the codes, 4 to 8; the engines run 8.

    Returns:
        Names of the streams.

    Raises:
        ValueError: ``bit_width`` is out of its range, or the model has neither a ResNet of plain
            blocks nor an FPN.
    """
    streams: dict[str, StreamQuantizer] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, ResNet):
            streams.update(_add_to_resnet(module, name, bit_width))
        elif type(module) is FPN:
            stream = streams[f'{name}.stream'] = StreamQuantizer(bit_width)
            parent, _, child = name.rpartition('.')
            model.get_submodule(parent)._modules[child] = StreamFPN.from_fpn(module, stream)
    if not streams:
        raise ValueError('model.quantization.stream: the model has no ResNet and no FPN whose '
                         'additions could be streams. Leave the key out; where the detector has an '
                         'integer form, streams are calibrated when it is converted.')
    for name, stream in streams.items():
        stream.name = name
        stream.to(next(model.parameters()).device)
    return list(streams)


def _add_to_resnet(resnet: ResNet, name: str, bit_width: int) -> Iterator[tuple]:
    for position, stage_name in enumerate(resnet.res_layers):
        blocks = list(getattr(resnet, stage_name))
        # A part of the first block, so that it is frozen with its stage.
        stream = blocks[0].stream = StreamQuantizer(bit_width)
        if position == 0 and blocks[0].downsample is None:
            resnet.maxpool.register_forward_hook(_ToStream(blocks[0], nonnegative=True))
        for block in blocks:
            _add_to_block(block, f'{name}.{stage_name}', blocks[0])
        yield f'{name}.{stage_name}.0.stream'.removeprefix('.'), stream


def _add_to_block(block: nn.Module, stage: str, owner: nn.Module) -> None:
    if not isinstance(block, (BasicBlock, Bottleneck)):
        raise ValueError(f'model.quantization.stream: {stage} has blocks of the type '
                         f'{type(block).__name__}; only BasicBlock and Bottleneck of a ResNet can '
                         'be trained with streams. Leave the key out.')
    branch = block.norm3 if isinstance(block, Bottleneck) else block.norm2
    for module in (branch, block.downsample):
        if module is not None:
            module.register_forward_hook(_ToStream(owner, nonnegative=False))
    block.register_forward_hook(_ToStream(owner, nonnegative=True))
