"""The models that training_cost.py compares: one detector, its convs quantized in several ways."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable, ContextManager

import torch
import torch.nn as nn
from composed import composed_liq_activation, composed_liq_weight
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from torch.ao.quantization.observer import MovingAverageMinMaxObserver

from mmaqd.functional import LIQActivationKernel, compile_kernels
from mmaqd.layers import QuantConv2d
from mmaqd.quantizers import Quantizer
from mmaqd.registry import MODELS


def build_detector(config: str) -> nn.Module:
    """The detector of a config, without loading any checkpoint."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


class ComposedConv2d(QuantConv2d):
    """LIQ composed from elementwise operations, quantized anew for every pyramid level."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.weight_quantizer, Quantizer):  # an observer, in a calibration
            return super().forward(x)
        weight, kernel = self.weight, self.weight_quantizer.kernel
        if self.input_quantizer is not None:
            x = composed_liq_activation(x, self.input_quantizer.interval,
                                        self.input_quantizer.bit_width)
        weight = composed_liq_weight(
            weight,
            self.weight_quantizer.interval,
            kernel.bit_width,
            kernel.normalize,
            center=kernel.center)
        return self._conv_forward(x, weight, self.bias)

    def quantize_weight_once(self) -> ContextManager[None]:
        return nullcontext()


class TorchLSQConv2d(nn.Conv2d):
    """A conv behind torch's own learnable fake quantization of its weights and its input."""

    def __init__(self, conv: QuantConv2d) -> None:
        super().__init__(**_arguments(conv))
        self.load_state_dict(conv.state_dict(), strict=False)
        bits = conv.weight_quantizer.bit_width
        qmax = 2**(bits - 1) - 1
        scale = self.weight.abs().max().item() / qmax
        self.weight_fake_quant = _learnable(-qmax - 1, qmax, torch.qint8, scale)
        self.input_fake_quant = None
        if conv.input_quantizer is not None:
            qmax = conv.input_quantizer.qmax
            scale = conv.input_quantizer.interval.item() / qmax
            self.input_fake_quant = _learnable(0, qmax, torch.quint8, scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.input_fake_quant is not None:
            x = self.input_fake_quant(x)
        return self._conv_forward(x, self.weight_fake_quant(self.weight), self.bias)


def _arguments(conv: nn.Conv2d) -> dict[str, Any]:
    names = 'in_channels out_channels kernel_size stride padding dilation groups'.split()
    return dict({name: getattr(conv, name) for name in names}, bias=conv.bias is not None)


def _learnable(qmin: int, qmax: int, dtype: torch.dtype, scale: float) -> nn.Module:
    module = _LearnableFakeQuantize(
        observer=MovingAverageMinMaxObserver,
        quant_min=qmin,
        quant_max=qmax,
        scale=scale,
        use_grad_scaling=True,
        dtype=dtype)
    module.enable_param_learning()
    return module


def _brevitas_conv(conv: QuantConv2d) -> nn.Module:
    import brevitas.nn as qnn
    from brevitas.quant import Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
    inputs = conv.input_quantizer
    return qnn.QuantConv2d(
        **_arguments(conv),
        weight_quant=Int8WeightPerTensorFloat,
        weight_bit_width=conv.weight_quantizer.bit_width,
        input_quant=None if inputs is None else Uint8ActPerTensorFloat,
        # The scale is learned from the second step on; by default 300 steps only take statistics.
        **({} if inputs is None else dict(
            input_bit_width=inputs.bit_width, input_collect_stats_steps=1)))


def _swap(model: nn.Module, make: Callable[[QuantConv2d], nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if type(child) is QuantConv2d:
                parent._modules[name] = make(child)
    return model


def composed(model: nn.Module) -> nn.Module:
    """``model`` with :class:`ComposedConv2d`."""
    for module in model.modules():
        if type(module) is QuantConv2d:
            module.__class__ = ComposedConv2d
    return model


def compiled(model: nn.Module) -> nn.Module:
    """``model``, with compiled kernels; the compiler is loaded already."""
    compile_kernels(True, model)
    device = next(model.parameters()).device
    LIQActivationKernel(4).compiled().forward(
        torch.ones(2, device=device), torch.ones((), device=device))
    return model


def channels_last(model: nn.Module) -> nn.Module:
    """``model`` as :class:`mmaqd.engine.ChannelsLastHook` has it."""
    return model.to(memory_format=torch.channels_last)


#: Name of the row, and how it is made from the low-bit model of mmaqd.
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    'mmaqd': lambda model: model,
    'mmaqd, compiled kernels': compiled,
    'mmaqd, compiled kernels, channels last': lambda model: channels_last(compiled(model)),
    'plain composition': composed,
    'torch learnable fake quantization': lambda model: _swap(model, TorchLSQConv2d),
    'brevitas': lambda model: _swap(model, _brevitas_conv),
}
