"""Fake quantization as one differentiable function that saves only its inputs."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import FakeQuantizeKernel


class _FakeQuantize(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, kernel: FakeQuantizeKernel, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.bound = kernel.bind(x, *parameters)
        ctx.save_for_backward(x, *parameters)
        return ctx.bound.fake_quantize(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, *_ = ctx.saved_tensors
        # A copy, as the kernel overwrites it.
        return (None, *ctx.bound.gradients(grad.clone(), x, ctx.bound.fake_quantize(x)))


def fake_quantize(x: Tensor, kernel: FakeQuantizeKernel, *parameters: Tensor) -> Tensor:
    """Quantize ``x`` and dequantize it again; gradients are those of the kernel.

    The rounding is computed again in the backward pass, so nothing is saved but ``x``, which its
    producer usually keeps anyway, and the parameters.

    Args:
        x: Any shape.
        kernel: The quantization, e.g. :class:`mmaqd.functional.LIQActivationKernel`.
        *parameters: Learned tensors that the kernel takes, e.g. the interval.

    Returns:
        Tensor of the shape and dtype of ``x``.

    Example:
        >>> from mmaqd.functional import LIQActivationKernel
        >>> x = torch.tensor([0.1, 0.6, 2.0])
        >>> fake_quantize(x, LIQActivationKernel(bit_width=2), torch.tensor(1.5))
        tensor([0.0000, 0.5000, 1.5000])
    """
    if torch.jit.is_tracing():  # which can't keep what an autograd function runs
        return kernel.forward(x.detach(), *[each.detach() for each in parameters])
    return _FakeQuantize.apply(kernel, x, *parameters)
