"""Give a detector streams: integers that its additions and shared feature maps are kept in."""
from __future__ import annotations

from typing import Iterator

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.dense_heads import ATSSHead, FCOSHead
from mmdet.models.necks import FPN
from torch import Tensor, nn

from mmaqd.models.necks import StreamFPN, is_rectified
from mmaqd.quantizers import StreamQuantizer


class _ToStream:
    """A hook that brings what a module gives into a stream; an object, as models are copied."""

    def __init__(self, owner: nn.Module, nonnegative: bool) -> None:
        # Its attribute is read in each call: in a calibration an observer stands in there.
        self.owner, self.nonnegative = owner, nonnegative

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return self.owner.stream(output, self.nonnegative)


def add_streams(model: nn.Module, bit_width: int = 8) -> list[str]:
    """Let what integers keep in 8 bits be rounded so in training too.

    A stage of a ResNet has one stream: what its blocks add, and their sums. So has an FPN, and a
    second one for its outputs. Heads of FCOS and ATSS have one for the maps that two prediction
    convs read.

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
            made = StreamFPN.from_fpn(module, StreamQuantizer(bit_width),
                                      StreamQuantizer(bit_width))
            parent, _, child = name.rpartition('.')
            model.get_submodule(parent)._modules[child] = made
            streams.update({f'{name}.stream': made.stream, f'{name}.out_stream': made.out_stream})
    if not streams:
        raise ValueError('model.quantization.stream: the model has no ResNet and no FPN whose '
                         'additions could be streams. Leave the key out; where the detector has an '
                         'integer form, streams are calibrated when it is converted.')
    streams.update(_add_to_heads(model, bit_width))
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


def _add_to_heads(model: nn.Module, bit_width: int) -> Iterator[tuple]:
    for name, head in list(model.named_modules()):
        if not isinstance(head, (ATSSHead, FCOSHead)):
            continue
        on_boxes = isinstance(head, ATSSHead) or head.centerness_on_reg
        convs = head.reg_convs if on_boxes else head.cls_convs
        if len(convs):
            head.stream = StreamQuantizer(bit_width)
            convs[-1].register_forward_hook(_ToStream(head, is_rectified(convs[-1])))
            yield f'{name}.stream', head.stream
