"""What a fake quantization is to the rest of the package: a kernel, forward and backward.

A kernel is a frozen value object with the numbers that are not learned (bit width, axis, ...). Its
methods map tensors to tensors and record nothing for autograd, so that one differentiable function
(:mod:`mmaqd.functional.fake_quantize`) and one fused conv (:mod:`mmaqd.functional.quant_conv`)
serve every family of quantizers, and neither saves more than the input and the parameters.
"""
from __future__ import annotations

from typing import Optional, Protocol

import torch
from torch import Tensor


class FakeQuantizeKernel(Protocol):
    """Quantize-then-dequantize of one tensor, with learned parameters."""

    def forward(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """The fake-quantized tensor, of the shape of ``x``."""

    def backward(self, grad: Tensor, x: Tensor, quantized: Tensor, *parameters:
                 Tensor) -> tuple[Tensor, ...]:
        """Gradients of ``x`` and of each parameter.

        Args:
            grad: Gradient of the output.
            x: Input of :meth:`forward`.
            quantized: Output of :meth:`forward`.
            *parameters: As for :meth:`forward`.
        """


def per_channel(values: Tensor, like: Tensor, axis: Optional[int]) -> Tensor:
    """View ``values`` so that it broadcasts over ``like``.

    Args:
        values: (C,) with ``axis``, or () without.
        like: Tensor whose size along ``axis`` is C.
        axis: The axis kept, None for per tensor.
    """
    if axis is None:
        return values
    shape = [1] * like.dim()
    shape[axis] = -1
    return values.view(shape)


def sum_over(x: Tensor, axis: Optional[int]) -> Tensor:
    """Sum ``x`` over all axes but ``axis``; the counterpart of :func:`per_channel`."""
    if axis is None:
        return x.sum()
    kept = axis % x.dim()
    return x.sum([dim for dim in range(x.dim()) if dim != kept])


def compute_dtype(x: Tensor) -> Tensor:
    """``x`` in the dtype that kernels compute in: float32 for half precision, else its own."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
