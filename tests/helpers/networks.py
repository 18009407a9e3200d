"""Small one-stage detectors with everything that an integer graph has to know."""
from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmaqd.layers import MultiLevelBN, MultiLevelModule, QuantConv2d
from mmaqd.quantizers import calibrate

MEAN = (124, 116, 104)


def weights(bits: int, family: str = 'LIQ', axis: int | None = None, **options: object) -> dict:
    """Config of a weight quantizer."""
    cfg = dict(type=f'mmaqd.{family}WeightQuantizer', bit_width=bits, **options)
    return cfg if family == 'DoReFa' else dict(cfg, axis=axis)


def inputs(bits: int, family: str = 'LIQ', **options: object) -> dict:
    """Config of an input quantizer."""
    return dict(type=f'mmaqd.{family}ActivationQuantizer', bit_width=bits, **options)


class ConvBN(nn.Module):
    """Conv, BN and optionally ReLU."""

    def __init__(self, conv: QuantConv2d, act: bool = True, levels: int = 0) -> None:
        super().__init__()
        channels = conv.out_channels
        self.conv, self.act = conv, act
        self.bn = MultiLevelBN(channels, num_levels=levels) if levels else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.act else x


class TinyDetector(nn.Module):
    """Stem, two residual blocks (one with a downsample), a top-down path, a head on two levels.

    Args:
        weight, input_: Quantizers of all convs but the first and the predictions.
        width: Channels, a multiple of 4.
        groups, dilation: Of the second conv of the first block.
    """

    def __init__(self,
                 weight: dict,
                 input_: dict,
                 width: int = 8,
                 groups: int = 1,
                 dilation: int = 1,
                 prediction_bits: int = 8) -> None:
        super().__init__()
        self.data_preprocessor = SimpleNamespace(
            _enable_normalize=True, mean=torch.tensor(MEAN), std=torch.ones(3))

        def conv(cin: int, cout: int, size: int = 3, **options: object) -> QuantConv2d:
            options = dict(dict(padding=size // 2, bias=False), **options)
            return QuantConv2d(
                cin, cout, size, weight_quantizer=weight, input_quantizer=input_, **options)

        first = QuantConv2d(
            3, width, 5, 2, 2, bias=False, weight_quantizer=weights(8, normalize=False))
        self.stem = ConvBN(first)
        self.a1 = ConvBN(conv(width, width))
        self.a2 = ConvBN(
            conv(width, width, padding=dilation, dilation=dilation, groups=groups), act=False)
        self.b1 = ConvBN(conv(width, 2 * width, stride=2))
        self.b2 = ConvBN(conv(2 * width, 2 * width), act=False)
        self.down = ConvBN(conv(width, 2 * width, 1, stride=2, padding=0), act=False)
        self.lateral = nn.ModuleList(
            [ConvBN(conv(width, width, 1)),
             ConvBN(conv(2 * width, width, 1))])
        self.out = ConvBN(conv(width, width))
        self.tower = ConvBN(conv(width, width), levels=2)
        last = weights(prediction_bits, normalize=False), inputs(prediction_bits)
        self.cls = QuantConv2d(
            width, 4, 3, padding=1, weight_quantizer=last[0], input_quantizer=last[1])
        self.reg = QuantConv2d(
            width, 4, 3, padding=1, weight_quantizer=last[0], input_quantizer=last[1])
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(scale)) for scale in (1.5, 0.75))

    def forward(self, image: Tensor, mode: str = 'tensor') -> tuple[list[Tensor], list[Tensor]]:
        x = F.max_pool2d(self.stem(image), 3, 2, 1)
        c1 = F.relu(self.a2(self.a1(x)) + x)
        c2 = F.relu(self.b2(self.b1(c1)) + self.down(c1))
        p1, p2 = self.lateral[0](c1), self.lateral[1](c2)
        p1 = p1 + F.interpolate(p2, size=p1.shape[2:], mode='nearest')
        results = []
        for level, p in enumerate((self.out(p1), p2)):
            for module in self.modules():
                if isinstance(module, MultiLevelModule):
                    module.level = level
            p = self.tower(p)
            results.append((self.cls(p), (self.reg(p) * self.scales[level]).clamp(min=0) * 8))
        return tuple([list(kind) for kind in zip(*results)])


def image(seed: int = 0, height: int = 24, width: int = 32, batch: int = 2) -> Tensor:
    """8-bit images with some structure, as float."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 4, generator=generator) * 255
    fine = F.interpolate(coarse, size=(height, width), mode='bilinear')
    noise = 60 * torch.randn(batch, 3, height, width, generator=generator)
    return (fine + noise).round().clamp(0, 255)


def normalized(images: Tensor) -> Tensor:
    """What the data preprocessor makes of images."""
    return images - torch.tensor(MEAN).float().view(1, 3, 1, 1)


@torch.no_grad()
def calibrated(detector: nn.Module, images: Tensor, gamma: float = 0.3) -> nn.Module:
    """Random BN parameters, statistics and intervals from the images; in evaluation.

    Args:
        detector: A detector of this file.
        images: 8-bit.
        gamma: Spread of BN's weights around 1; with 1 some are negative.
    """
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.normal_(module.weight, 1, gamma)
            nn.init.normal_(module.bias, 0.2, 0.3)
    detector.train()
    calibrate(detector, [normalized(images)], lambda model, batch: model(batch, mode='tensor'))
    detector(normalized(images))
    return detector.eval()
