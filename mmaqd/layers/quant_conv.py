"""Convolutions with quantizers for their weights and their input."""
from __future__ import annotations

import torch
import torch.nn as nn
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmaqd.functional import AdaptiveConvGeometry, ConvGeometry
from mmaqd.registry import MODELS

from .quant_layer import FusedLayer, QuantizerCfg, QuantLayer


@MODELS.register_module()
class QuantConv2d(FusedLayer, nn.Conv2d, _ConvNd):
    """A :class:`torch.nn.Conv2d` that quantizes its weights and its input.

    ``weight`` and ``bias`` keep their names, so that float checkpoints load. The bias is not
    quantized.

    In evaluation without gradients on a CPU the quantized weights are kept, together with a copy of
    what they were made from, until that changes. (On a GPU quantizing again costs less than
    comparing.)

    Args:
        *args, **kwargs: As for :class:`torch.nn.Conv2d`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).
    """

    @classmethod
    def from_float(cls,
                   layer: nn.Conv2d,
                   weight_quantizer: QuantizerCfg = None,
                   input_quantizer: QuantizerCfg = None) -> QuantConv2d:
        """As :meth:`from_conv`."""
        return cls.from_conv(layer, weight_quantizer, input_quantizer)

    @classmethod
    def from_conv(cls,
                  conv: nn.Conv2d,
                  weight_quantizer: QuantizerCfg = None,
                  input_quantizer: QuantizerCfg = None) -> QuantConv2d:
        """The quantized twin of ``conv``, which shares its parameters."""
        quant_conv = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device='meta',
            weight_quantizer=weight_quantizer,
            input_quantizer=input_quantizer)
        quant_conv.weight = conv.weight
        quant_conv.bias = conv.bias
        quant_conv.train(conv.training)
        return quant_conv.to(conv.weight.device)  # for the quantizers

    def _geometry_arguments(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    def _geometry(self) -> ConvGeometry:
        return ConvGeometry(self.stride, self.padding, self.dilation, self.groups)

    def _forward_exported(self, x: Tensor) -> Tensor:
        """One operator. Whether the intervals have values is asked where its graph is used."""
        from mmaqd.functional.operators import kernel_to_text  # torch 2.1 has no custom_op
        inputs, quantizer = self.input_quantizer, self.weight_quantizer
        return torch.ops.mmaqd.quant_conv2d(x, self.weight, self.bias,
                                            list(inputs.learned_parameters) if inputs else [],
                                            list(quantizer.learned_parameters) if quantizer else [],
                                            kernel_to_text(inputs and inputs.kernel),
                                            kernel_to_text(quantizer and quantizer.kernel),
                                            self.stride, self.padding, self.dilation, self.groups)

    def _operate(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(x, weight, self.bias)

    @property
    def _can_fuse(self) -> bool:
        return self.padding_mode == 'zeros' and not isinstance(self.padding, str)


@MODELS.register_module()
class QuantConv2dAdaptivePadding(FusedLayer, Conv2dAdaptivePadding, nn.Conv2d):
    """A :class:`mmcv.cnn.Conv2dAdaptivePadding` that quantizes its weights and its input.

    It pads so that its output has ceil(size / stride) pixels, with zeros that are not quantized.

    Args:
        *args, **kwargs: As for :class:`mmcv.cnn.Conv2dAdaptivePadding`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).
    """

    def _geometry_arguments(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    def _geometry(self) -> AdaptiveConvGeometry:
        return AdaptiveConvGeometry(*self._geometry_arguments())


@MODELS.register_module()
class QuantConvTranspose2d(QuantLayer, nn.ConvTranspose2d, _ConvTransposeNd):
    """A :class:`torch.nn.ConvTranspose2d` that quantizes its weights and its input.

    Args:
        *args, **kwargs: As for :class:`torch.nn.ConvTranspose2d`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float. With
            ``axis=0``, one interval for each output channel, the layer must not have groups.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).

    Raises:
        ValueError: One interval for each output channel, and groups.
    """

    @property
    def num_outputs(self) -> int:
        return self.out_channels

    @property
    def packed_axis(self) -> int:
        return 1

    @property
    def channels_first_weight(self) -> Tensor:
        return self.weight.transpose(0, 1)

    def _fake_quantized_weight(self) -> Tensor:
        return self.weight_quantizer(self.channels_first_weight).transpose(0, 1)

    def _operate(self, x: Tensor, weight: Tensor, output_size: list[int] | None = None) -> Tensor:
        output_padding = self._output_padding(x, output_size, self.stride, self.padding,
                                              self.kernel_size, 2, self.dilation)
        return nn.functional.conv_transpose2d(x, weight, self.bias, self.stride, self.padding,
                                              output_padding, self.groups, self.dilation)

    def _set_quantizers(self, weight: QuantizerCfg, inputs: QuantizerCfg) -> None:
        super()._set_quantizers(weight, inputs)
        if self.groups > 1 and getattr(self.weight_quantizer, 'granularity', '') == 'per_channel':
            raise ValueError(
                'QuantConvTranspose2d: with groups the weights of an output channel do not lie '
                'along one axis, so axis must be None (one interval), but got axis=0. Add a rule '
                "dict(module_type='ConvTranspose2d', weight_quantizer=dict(axis=None)).")
