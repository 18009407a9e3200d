"""Convolutions and linear layers, fake-quantized, fused so that training saves no copies.

Composed from elementwise operations, a quantized conv keeps its quantized input, its quantized
weights and several masks for the backward pass. Here only the input (which the ReLU in front keeps
anyway) and the parameters are saved; the quantized tensors are computed again in the backward pass.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .geometry import ConvGeometry, Geometry, OptionalTensors
from .kernels import FLOAT, BoundKernel, FakeQuantizeKernel

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class ConvPlan:
    """All of a quantized conv or linear layer that is no tensor; made once and called often."""

    geometry: Geometry
    input_kernel: FakeQuantizeKernel = FLOAT
    weight_kernel: FakeQuantizeKernel = FLOAT

    def __call__(
            self,
            x: Tensor,
            weight: Tensor,
            bias: Tensor | None,
            input_parameters: Tensors = (),
            weight_parameters: Tensors = (),
    ) -> Tensor:
        """:func:`quant_conv2d` with this geometry and these kernels."""
        dtype = _conv_dtype(x, weight)
        if torch.jit.is_tracing():
            # A trace (of the flops counter, say) sees the operators only outside an autograd
            # function, and what is computed in place has no gradient there.
            x, weight = x.detach(), weight.detach()
            input_parameters = tuple(each.detach() for each in input_parameters)
            weight_parameters = tuple(each.detach() for each in weight_parameters)
        elif torch.is_grad_enabled():
            return _QuantConv2d.apply(self, dtype, len(input_parameters), x, weight, bias,
                                      *input_parameters, *weight_parameters)
        return self.convolve(x, self.input_kernel.bind(x, *input_parameters), weight,
                             self.weight_kernel.bind(weight, *weight_parameters), bias, dtype)

    def convolve(self, x: Tensor, inputs: BoundKernel, weight: Tensor, weights: BoundKernel,
                 bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return self.geometry.forward(
            inputs.fake_quantize(x, dtype), weights.fake_quantize(weight, dtype),
            None if bias is None else bias.to(dtype))


class _QuantConv2d(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, plan: ConvPlan, dtype: torch.dtype, split: int, x: Tensor, weight: Tensor,
                bias: Tensor | None, *parameters: Tensor) -> Tensor:
        inputs = plan.input_kernel.bind(x, *parameters[:split])
        weights = plan.weight_kernel.bind(weight, *parameters[split:])
        ctx.known = plan.geometry, dtype, split, inputs, weights
        ctx.save_for_backward(x, weight, bias, *parameters)
        return plan.convolve(x, inputs, weight, weights, bias, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> OptionalTensors:
        geometry, dtype, split, inputs, weights = ctx.known
        x, weight, bias, *_ = ctx.saved_tensors
        x_q, weight_q = inputs.fake_quantize(x, dtype), weights.fake_quantize(weight, dtype)
        needs_x, needs_w, needs_bias, *needed = ctx.needs_input_grad[3:]
        grad_x, grad_w, grad_b = geometry.backward(
            grad, x_q, weight_q, bias is not None,
            (needs_x or True in needed[:split], needs_w or True in needed[split:], needs_bias))
        grad_x, *of_inputs = _gradients(inputs, grad_x, x, x_q, split)
        grad_w, *of_weights = _gradients(weights, grad_w, weight, weight_q, len(needed) - split)
        grad_b = None if grad_b is None else grad_b.to(bias.dtype)
        return (None, None, None, grad_x, grad_w, grad_b, *of_inputs, *of_weights)


def _gradients(bound: BoundKernel, grad: Tensor | None, x: Tensor, fake_quantized: Tensor,
               num_parameters: int) -> OptionalTensors:
    """Gradients of ``x`` and the parameters, None for each from None; ``grad`` is overwritten."""
    if grad is None:
        return (None, ) * (1 + num_parameters)
    return bound.gradients(grad, x, fake_quantized)


def quant_conv2d(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: ConvGeometry,
        *,
        input_kernel: FakeQuantizeKernel | None = None,
        input_parameters: Tensors = (),
        weight_kernel: FakeQuantizeKernel | None = None,
        weight_parameters: Tensors = (),
) -> Tensor:
    """conv2d(Q_x(x), Q_w(weight)) + bias.

    The same numbers, forward and backward, as :func:`mmaqd.functional.fake_quantize` on both
    operands followed by ``conv2d``. Kernels compute in float32 (or float64); under autocast the
    conv itself runs in the autocast dtype.

    Args:
        x: (N, C_in, H, W).
        weight: (C_out, C_in / groups, K_h, K_w).
        bias: (C_out,) or None; never quantized.
        geometry: Stride, padding, dilation, groups.
        input_kernel: Quantization of ``x``; None leaves it as it is.
        input_parameters: Learned tensors of ``input_kernel``.
        weight_kernel: Quantization of ``weight``; None leaves it as it is.
        weight_parameters: Learned tensors of ``weight_kernel``.

    Returns:
        (N, C_out, H_out, W_out).
    """
    plan = ConvPlan(geometry, input_kernel or FLOAT, weight_kernel or FLOAT)
    return plan(x, weight, bias, input_parameters, weight_parameters)


def _conv_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    device = x.device.type
    if device == 'meta':  # has no autocast, and torch raises when asked
        return weight.dtype
    if hasattr(torch, 'get_autocast_dtype'):
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(
            device) else weight.dtype
    if device == 'cpu':  # torch < 2.4
        enabled, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        enabled, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return dtype if enabled else weight.dtype
