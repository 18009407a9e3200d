"""Convolution with fake-quantized weights and input, fused so that training saves no copies.

Composed from elementwise operations, a quantized conv keeps its quantized input, its quantized
weights and several masks for the backward pass. Here only the input (which the ReLU in front keeps
anyway) and the parameters are saved; the quantized tensors are computed again in the backward pass.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import FakeQuantizeKernel

Tensors = Tuple[Tensor, ...]
OptionalTensors = Tuple[Optional[Tensor], ...]


@dataclass(frozen=True)
class ConvGeometry:
    """Arguments of a 2-d convolution, each pair as (height, width), zero padding."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool,
                 needs: tuple[bool, bool, bool]) -> OptionalTensors:
        return torch.ops.aten.convolution_backward(grad, x, weight,
                                                   [weight.shape[0]] if has_bias else None,
                                                   self.stride, self.padding, self.dilation, False,
                                                   (0, 0), self.groups, needs)


@dataclass(frozen=True)
class _Plan:
    geometry: ConvGeometry
    input_kernel: Optional[FakeQuantizeKernel]
    weight_kernel: Optional[FakeQuantizeKernel]
    num_input_parameters: int
    dtype: torch.dtype

    def prepare(self, x: Tensor, weight: Tensor, parameters: Tensors) -> tuple[Any, Any]:
        split = self.num_input_parameters
        return (_prepare(self.input_kernel, x, parameters[:split]),
                _prepare(self.weight_kernel, weight, parameters[split:]))

    def quantize(self, x: Tensor, weight: Tensor, parameters: Tensors,
                 prepared: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
        split = self.num_input_parameters
        return (_quantize(self.input_kernel, x, parameters[:split], prepared[0], self.dtype),
                _quantize(self.weight_kernel, weight, parameters[split:], prepared[1], self.dtype))

    def convolve(self, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        return self.geometry.forward(x, weight, None if bias is None else bias.to(self.dtype))


def _prepare(kernel: Optional[FakeQuantizeKernel], x: Tensor, parameters: Tensors) -> Any:
    return None if kernel is None else kernel.begin(x, *parameters)


def _quantize(kernel: Optional[FakeQuantizeKernel], x: Tensor, parameters: Tensors, prepared: Any,
              dtype: torch.dtype) -> Tensor:
    if kernel is None:
        return x.to(dtype)
    return kernel.forward(x, *parameters, prepared=prepared, dtype=dtype)


def _gradients(kernel: Optional[FakeQuantizeKernel], grad: Optional[Tensor], x: Tensor,
               quantized: Tensor, parameters: Tensors, prepared: Any) -> OptionalTensors:
    """Gradients of ``x`` and the parameters from that of ``quantized``, which is overwritten."""
    if grad is None:
        return (None, ) * (1 + len(parameters))
    if kernel is None:
        return (grad.to(x.dtype), )
    return kernel.backward(grad, x, quantized, *parameters, prepared=prepared)


class _QuantConv2d(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, weight: Tensor, bias: Optional[Tensor],
                *parameters: Tensor) -> Tensor:
        ctx.plan, ctx.prepared = plan, plan.prepare(x, weight, parameters)
        ctx.save_for_backward(x, weight, bias, *parameters)
        return plan.convolve(*plan.quantize(x, weight, parameters, ctx.prepared), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> OptionalTensors:
        plan: _Plan = ctx.plan
        x, weight, bias, *parameters = ctx.saved_tensors
        split = plan.num_input_parameters
        needed = ctx.needs_input_grad[1:]
        needs_input = needed[0] or any(needed[3:3 + split])
        needs_weight = needed[1] or any(needed[3 + split:])
        x_q, weight_q = plan.quantize(x, weight, tuple(parameters), ctx.prepared)
        grad_x, grad_w, grad_b = plan.geometry.backward(
            grad, x_q, weight_q, bias is not None,
            (needs_input, needs_weight, bias is not None and needed[2]))
        grad_b = None if grad_b is None else grad_b.to(bias.dtype)
        grad_x, *grads_input = _gradients(plan.input_kernel, grad_x, x, x_q, parameters[:split],
                                          ctx.prepared[0])
        grad_w, *grads_weight = _gradients(plan.weight_kernel, grad_w, weight, weight_q,
                                           parameters[split:], ctx.prepared[1])
        return (None, grad_x, grad_w, grad_b, *grads_input, *grads_weight)


def quant_conv2d(
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        geometry: ConvGeometry,
        *,
        input_kernel: Optional[FakeQuantizeKernel] = None,
        input_parameters: Tensors = (),
        weight_kernel: Optional[FakeQuantizeKernel] = None,
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
    plan = _Plan(geometry, input_kernel, weight_kernel, len(input_parameters),
                 _conv_dtype(x, weight))
    parameters = (*input_parameters, *weight_parameters)
    if torch.jit.is_tracing() or not torch.is_grad_enabled():
        # A trace (of the flops counter, say) sees the operators only outside an autograd function.
        prepared = plan.prepare(x, weight, parameters)
        return plan.convolve(*plan.quantize(x, weight, parameters, prepared), bias)
    return _QuantConv2d.apply(plan, x, weight, bias, *parameters)


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
