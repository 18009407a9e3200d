"""What a fake quantization is to the rest of the package: a kernel, forward and backward.

A kernel is a frozen value object with the numbers that are not learned (bit width, axis, ...). Its
methods map tensors to tensors and record nothing for autograd, so that one differentiable function
(:mod:`mmaqd.functional.fake_quantize`) and one fused conv (:mod:`mmaqd.functional.quant_conv`)
serve every family of quantizers, and neither saves more than the input and the parameters.
"""
from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor

from .blocks import blocks
from .grid import IntegerGrid
from .one_pass import flat_for_one_pass, one_pass
from .triton_liq import LIQOnGPU


class FakeQuantizeKernel:
    """Quantize-then-dequantize of one tensor, with learned parameters.

    A family gives the elementwise formulas for a part of the tensor (:meth:`_write_codes`,
    :meth:`_dequantize`, :meth:`_gradients`); this class applies them to the whole.

    Attributes:
        bit_width: Number of bits of a code.
        axis: The axis with parameters of its own per index; None for one of each.
    """

    bit_width: int
    axis: Optional[int] = None

    @property
    def grid(self) -> IntegerGrid:
        """The integer codes."""
        raise NotImplementedError

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return self.grid.qmin

    @property
    def qmax(self) -> int:
        """Largest code."""
        return self.grid.qmax

    @property
    def takes_negative(self) -> bool:
        """Whether negative numbers are quantized, not clipped to zero."""
        return self.grid.signed

    @property
    def normalizes(self) -> bool:
        """Whether another scale than that of ``x`` is quantized, which a norm must take back."""
        return False

    @property
    def shifts(self) -> bool:
        """Whether a mean is subtracted from ``x`` first, which no norm gives back."""
        return False

    def normalized(self, x: Tensor) -> Tensor:
        """What is quantized: ``x``, or what :attr:`normalizes` makes of it."""
        return x

    def offset(self, *parameters: Tensor) -> Optional[Tensor]:
        """Real value of the code 0, the shape of the scale; None for zero."""
        return None

    def begin(self, x: Tensor, *parameters: Tensor) -> Any:
        """What :meth:`forward` and :meth:`backward` share, computed once."""
        return self._on_gpu(x, *parameters) or self.prepare(x, *parameters)

    def prepare(self, x: Tensor, *parameters: Tensor) -> Any:
        """What the formulas need besides ``x``: the scale, the mean of ``x``, ..."""
        raise NotImplementedError

    def parameter_gradient_factor(self, x: Tensor) -> float:
        """Factor of the gradients of the parameters; by default 1."""
        return 1.0

    def codes(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Integer codes of ``x``, as floating-point values."""
        codes, prepared = torch.empty_like(x), self.prepare(x, *parameters)
        for x_part, part in blocks(x, codes) if self.axis is None else [(x, codes)]:
            self._write_codes(part, x_part, prepared)
        return codes

    def forward(self,
                x: Tensor,
                *parameters: Tensor,
                prepared: Any = None,
                dtype: Optional[torch.dtype] = None) -> Tensor:
        """The fake-quantized tensor, of the shape of ``x``.

        Args:
            x: Any shape. Half precision is computed with in float32.
            *parameters: Learned tensors.
            prepared: What :meth:`begin` returns, where it was called already.
            dtype: Of the result; None for that of ``x``.
        """
        prepared = prepared or self.begin(x, *parameters)
        if isinstance(prepared, LIQOnGPU):
            return prepared.quantize(x, dtype)
        quantized = torch.empty_like(x, dtype=dtype)
        self._apply(self._quantize, prepared, quantized, x)
        return quantized

    def backward(self,
                 grad: Tensor,
                 x: Tensor,
                 quantized: Tensor,
                 *parameters: Tensor,
                 prepared: Any = None) -> tuple[Tensor, ...]:
        """Gradients of ``x``, in its dtype, and of each parameter.

        Args:
            grad: Gradient of the output; it may be overwritten.
            x: Input of :meth:`forward`.
            quantized: Output of :meth:`forward`, of any dtype: in half precision it is not exact,
                and computed again.
            *parameters: As for :meth:`forward`.
            prepared: As for :meth:`forward`.
        """
        prepared = prepared or self.begin(x, *parameters)
        factor = self.parameter_gradient_factor(x)
        if isinstance(prepared, LIQOnGPU):
            return prepared.gradients(grad, x, factor)
        grad = grad.to(torch.promote_types(grad.dtype, x.dtype))
        known = [quantized] if quantized.dtype == _computing(x.dtype) else []
        gradients = self._apply(self._differentiate, prepared, grad, x, *known)
        return (grad.to(x.dtype), *(_total(parts, factor) for parts in zip(*gradients)))

    def _on_gpu(self, x: Tensor, *parameters: Tensor) -> Optional[LIQOnGPU]:
        """One pass over memory on a GPU; None where the family has none, or it does not apply."""
        return None

    def _apply(self, function: Callable, prepared: Any, *tensors: Tensor) -> list:
        """Results of ``function`` for all parts of the tensors, in the cheapest way there is."""
        if self.axis is not None:
            return [function(prepared, *tensors)]
        flat = flat_for_one_pass(*tensors)
        if flat is not None:
            return [one_pass(function, prepared, *flat)]
        return [function(prepared, *parts) for parts in blocks(*tensors)]

    def _quantize(self, prepared: Any, out: Tensor, x: Tensor) -> None:
        x = compute_dtype(x)
        quantized = out if out.dtype == x.dtype else torch.empty_like(x)
        self._write_codes(quantized, x, prepared)
        self._dequantize(quantized, prepared)
        if quantized is not out:
            out.copy_(quantized)

    def _differentiate(self,
                       prepared: Any,
                       grad: Tensor,
                       x: Tensor,
                       quantized: Optional[Tensor] = None) -> tuple[Tensor, ...]:
        x, computed = compute_dtype(x), compute_dtype(grad)
        if quantized is None:
            quantized = torch.empty_like(x)
            self._quantize(prepared, quantized, x)
        gradients = self._gradients(computed, x, quantized, prepared)
        if computed is not grad:
            grad.copy_(computed)
        return gradients

    def _write_codes(self, out: Tensor, x: Tensor, prepared: Any) -> None:
        """Write the integer codes of ``x`` to ``out``."""
        raise NotImplementedError

    def _dequantize(self, codes: Tensor, prepared: Any) -> None:
        """Turn ``codes`` into real values, in place."""
        raise NotImplementedError

    def _gradients(self, grad: Tensor, x: Tensor, quantized: Tensor,
                   prepared: Any) -> tuple[Tensor, ...]:
        """Overwrite ``grad`` by the gradient of ``x``; return those of the parameters."""
        raise NotImplementedError


def _total(parts: tuple[Tensor, ...], factor: float) -> Tensor:
    total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)
    return total if factor == 1 else total * factor


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


def dot(x: Tensor, y: Tensor, axis: Optional[int] = None) -> Tensor:
    """Sum of ``x * y`` over all axes but ``axis``. ``x`` may be overwritten."""
    if axis is None:
        return torch.dot(x.reshape(-1), y.reshape(-1))
    kept = axis % x.dim()
    return x.mul_(y).sum([dim for dim in range(x.dim()) if dim != kept])


def compute_dtype(x: Tensor) -> Tensor:
    """``x`` in the dtype that kernels compute in: float32 for half precision, else its own."""
    return x.to(_computing(x.dtype))


def _computing(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
