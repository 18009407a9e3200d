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
        if torch.is_grad_enabled() and not torch.jit.is_tracing():
            return _QuantConv2d.apply(self, dtype, len(input_parameters), x, weight, bias,
                                      *input_parameters, *weight_parameters)
        if torch.jit.is_tracing():
            # A trace (of the flops counter, say) sees the operators only outside an autograd
            # function, and what is computed in place has no gradient there.
            x, weight = x.detach(), weight.detach()
            input_parameters = tuple(each.detach() for each in input_parameters)
            weight_parameters = tuple(each.detach() for each in weight_parameters)
        return self.convolve(
            Operand(self.input_kernel, x, input_parameters),
            Operand(self.weight_kernel, weight, weight_parameters), bias, dtype)

    def convolve(self, inputs: Operand, weight: Operand, bias: Tensor | None,
                 dtype: torch.dtype) -> Tensor:
        return self.geometry.forward(
            inputs.fake_quantized(dtype), weight.fake_quantized(dtype),
            None if bias is None else bias.to(dtype))


class Operand:
    """One side of a quantized conv: a tensor, its kernel and the learned tensors of that."""

    __slots__ = ('kernel', 'x', 'parameters', 'bound')

    def __init__(self,
                 kernel: FakeQuantizeKernel,
                 x: Tensor,
                 parameters: Tensors,
                 bound: BoundKernel | None = None) -> None:
        self.kernel, self.x, self.parameters = kernel, x, parameters
        self.bound = bound or kernel.bind(x, *parameters)

    def fake_quantized(self, dtype: torch.dtype) -> Tensor:
        return self.kernel.forward(self.x, *self.parameters, bound=self.bound, dtype=dtype)

    def gradients(self, grad: Tensor | None, fake_quantized: Tensor) -> OptionalTensors:
        """Gradients of ``x`` and the parameters, None for each from None.

        ``grad``, that of ``fake_quantized``, is overwritten.
        """
        if grad is None:
            return (None, ) * (1 + len(self.parameters))
        return self.kernel.backward(
            grad, self.x, fake_quantized, *self.parameters, bound=self.bound)


class _QuantConv2d(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, plan: ConvPlan, dtype: torch.dtype, split: int, x: Tensor, weight: Tensor,
                bias: Tensor | None, *parameters: Tensor) -> Tensor:
        inputs = Operand(plan.input_kernel, x, parameters[:split])
        weights = Operand(plan.weight_kernel, weight, parameters[split:])
        ctx.static = plan, dtype, split
        ctx.bound = inputs.bound, weights.bound
        ctx.save_for_backward(x, weight, bias, *parameters)
        return plan.convolve(inputs, weights, bias, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> OptionalTensors:
        plan, dtype, split = ctx.static
        x, weight, bias, *parameters = ctx.saved_tensors
        inputs = Operand(plan.input_kernel, x, parameters[:split], ctx.bound[0])
        weights = Operand(plan.weight_kernel, weight, parameters[split:], ctx.bound[1])
        x_q, weight_q = inputs.fake_quantized(dtype), weights.fake_quantized(dtype)
        needs_x, needs_w, needs_bias, *needed = ctx.needs_input_grad[3:]
        grad_x, grad_w, grad_b = plan.geometry.backward(
            grad, x_q, weight_q, bias is not None,
            (needs_x or any(needed[:split]), needs_w or any(needed[split:]), needs_bias))
        return (None, None, None, *_with_bias(
            inputs.gradients(grad_x, x_q), weights.gradients(grad_w, weight_q),
            None if grad_b is None else grad_b.to(bias.dtype)))


def _with_bias(inputs: OptionalTensors, weights: OptionalTensors,
               bias: Tensor | None) -> OptionalTensors:
    """The gradients in the order of the tensors: both operands, the bias, the parameters."""
    return (inputs[0], weights[0], bias, *inputs[1:], *weights[1:])


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
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    elif device == 'cpu':  # torch < 2.4
        enabled, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        enabled, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return dtype if enabled else weight.dtype
