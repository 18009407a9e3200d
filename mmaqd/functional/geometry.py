"""What a fused layer multiplies its input and its weights by, and the gradients of that."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

OptionalTensors = tuple[Tensor | None, ...]


class Geometry(Protocol):
    """A product of an input and weights, without a quantization."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product, plus the bias."""

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool,
                 needs: tuple[bool, bool, bool]) -> OptionalTensors:
        """Gradients of input, weights and bias, each None where it is not needed."""


@dataclass(frozen=True)
class ConvGeometry:
    """Arguments of a 2-d convolution, each pair as (height, width), zero padding."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool,
                 needs: tuple[bool, bool, bool]) -> OptionalTensors:
        return torch.ops.aten.convolution_backward(grad, x, weight,
                                                   [weight.shape[0]] if has_bias else None,
                                                   self.stride, self.padding, self.dilation, False,
                                                   (0, 0), self.groups, needs)


@dataclass(frozen=True)
class AdaptiveConvGeometry(ConvGeometry):
    """A 2-d convolution with as many zeros around that its output has ceil(size / stride) pixels.

    An odd one goes to the right and to the bottom. The padding is decided by each input.
    """

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super().forward(F.pad(x, self._zeros(x, weight)), weight, bias)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool,
                 needs: tuple[bool, bool, bool]) -> OptionalTensors:
        left, _, top, _ = zeros = self._zeros(x, weight)
        height, width = x.shape[2:]
        grad_x, *others = super().backward(grad, F.pad(x, zeros), weight, has_bias, needs)
        if grad_x is not None and any(zeros):
            grad_x = grad_x[:, :, top:top + height, left:left + width].contiguous()
        return (grad_x, *others)

    def _zeros(self, x: Tensor, weight: Tensor) -> list[int]:
        """Left, right, top, bottom."""
        zeros = []
        for axis in (1, 0):
            size, extent = x.shape[2 + axis], weight.shape[2 + axis]
            reach = (extent - 1) * self.dilation[axis] + 1
            total = max((-(-size // self.stride[axis]) - 1) * self.stride[axis] + reach - size, 0)
            zeros += [total // 2, total - total // 2]
        return zeros


@dataclass(frozen=True)
class LinearGeometry:
    """x W^T + b over the last axis of x, whatever axes are in front."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dim() == 2:
            return F.linear(x, weight, bias)
        # torch returns a view here, which nothing may change in place (as a ReLU does) when it
        # comes out of an autograd function.
        rows = F.linear(x.reshape(-1, weight.shape[1]), weight, bias)
        return torch.ops.aten._unsafe_view(rows, [*x.shape[:-1], weight.shape[0]])

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool,
                 needs: tuple[bool, bool, bool]) -> OptionalTensors:
        rows = grad.reshape(-1, weight.shape[0])
        return (
            grad.matmul(weight) if needs[0] else None,
            rows.t().mm(x.reshape(-1, weight.shape[1])) if needs[1] else None,
            rows.sum(0) if has_bias and needs[2] else None,
        )
