"""Deformable convolutions with quantizers for their weights and their input.

The offsets, and the masks of the second version, stay in float: they are positions and factors. The
conv that computes them in a ``Pack`` is a layer of its own, which takes the unquantized input.
"""
from __future__ import annotations

import torch
from mmcv.ops import (DeformConv2d, DeformConv2dPack, ModulatedDeformConv2d,
                      ModulatedDeformConv2dPack, deform_conv2d, modulated_deform_conv2d)
from torch import Tensor
from torch.nn.functional import pad

from mmaqd.registry import MODELS

from .quant_layer import QuantLayer


@MODELS.register_module()
class QuantDeformConv2d(QuantLayer, DeformConv2d):
    """A :class:`mmcv.ops.DeformConv2d` that quantizes its weights and its input.

    Args:
        *args, **kwargs: As for :class:`mmcv.ops.DeformConv2d`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), offset (N, 2 G K_h K_w, H_out, W_out) for G deformable groups, output
        (N, C_out, H_out, W_out).
    """

    def _operate(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        # An input smaller than ``kernel_size`` is enlarged, as upstream does for its code on a GPU.
        extra = [max(extent - size, 0) for extent, size in zip(self.kernel_size, x.shape[2:])]
        if any(extra):
            x, offset = (pad(each, (0, extra[1], 0, extra[0])).contiguous() for each in (x, offset))
        out = self._convolve(x, weight, offset)
        return out[:, :, :out.shape[2] - extra[0], :out.shape[3] - extra[1]].contiguous()

    def _convolve(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return deform_conv2d(x, offset, weight, self.stride, self.padding, self.dilation,
                             self.groups, self.deform_groups, False, self.im2col_step)


@MODELS.register_module()
class QuantDeformConv2dPack(QuantDeformConv2d, DeformConv2dPack, DeformConv2d):
    """A :class:`mmcv.ops.DeformConv2dPack` (DCN) that quantizes its weights and its input.

    Args:
        *args, **kwargs: As for :class:`mmcv.ops.DeformConv2dPack`.
        weight_quantizer, input_quantizer: As for :class:`QuantDeformConv2d`; those of
            ``conv_offset`` are its own.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, self.conv_offset(x))

    def _operate(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self._convolve(x, weight, offset)


@MODELS.register_module()
class QuantModulatedDeformConv2d(QuantLayer, ModulatedDeformConv2d):
    """A :class:`mmcv.ops.ModulatedDeformConv2d` that quantizes its weights and its input.

    Args:
        *args, **kwargs: As for :class:`mmcv.ops.ModulatedDeformConv2d`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), offset (N, 2 G K_h K_w, H_out, W_out) and mask
        (N, G K_h K_w, H_out, W_out) for G deformable groups, output (N, C_out, H_out, W_out).
    """

    def _operate(self, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return modulated_deform_conv2d(x, offset, mask, weight, self.bias, self.stride,
                                       self.padding, self.dilation, self.groups, self.deform_groups)


@MODELS.register_module()
class QuantModulatedDeformConv2dPack(QuantModulatedDeformConv2d, ModulatedDeformConv2dPack,
                                     ModulatedDeformConv2d):
    """A :class:`mmcv.ops.ModulatedDeformConv2dPack` (DCNv2), with quantized weights and input.

    Args:
        *args, **kwargs: As for :class:`mmcv.ops.ModulatedDeformConv2dPack`.
        weight_quantizer, input_quantizer: As for :class:`QuantModulatedDeformConv2d`; those of
            ``conv_offset`` are its own.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns, mask = self.conv_offset(x).chunk(3, dim=1)
        return super().forward(x, torch.cat((rows, columns), dim=1), mask.sigmoid())
