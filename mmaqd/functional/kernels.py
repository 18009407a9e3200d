"""What a fake quantization is to the rest of the package: a kernel, forward and backward.

A kernel is a frozen value object with the numbers that are not learned (bit width, axis, ...). Its
methods map tensors to tensors and record nothing for autograd, so that one differentiable function
(:mod:`mmaqd.functional.fake_quantize`) and one fused conv (:mod:`mmaqd.functional.quant_conv`)
serve every family of quantizers, and neither saves more than the input and the parameters.
"""
from __future__ import annotations

from copy import copy
from typing import Any, Callable, NamedTuple, Protocol

import torch
from torch import Tensor

from .blocks import blocks, is_one_block
from .grid import IntegerGrid
from .one_pass import flat_for_one_pass, one_pass

_COMPUTED_AS_THEY_ARE = (torch.float32, torch.float64)


class BoundKernel(Protocol):
    """The quantization of one tensor: what :meth:`FakeQuantizeKernel.bind` gives."""

    def fake_quantize(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The fake-quantized tensor in ``dtype``, by default that of ``x``."""

    def gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor) -> tuple[Tensor, ...]:
        """Gradients of ``x``, in its dtype, and of each parameter; ``grad`` may be overwritten."""


class FakeQuantizeKernel:
    """Quantize-then-dequantize of one tensor, with learned parameters.

    A family gives the elementwise formulas for a part of the tensor (:meth:`_write_codes`,
    :meth:`_dequantize`, :meth:`_gradients`); this class applies them to the whole.

    Attributes:
        bit_width: Number of bits of a code.
        axis: The axis with parameters of its own per index; None for one of each.
        is_compiled: Whether it is compiled, see :func:`mmaqd.functional.compile_kernels`.
    """

    bit_width: int
    axis: int | None = None
    is_compiled: bool = False

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

    def compiled(self, on: bool = True) -> FakeQuantizeKernel:
        """The same kernel, compiled or not."""
        twin = copy(self)
        twin.__dict__['is_compiled'] = on  # no field: a compiled kernel equals one that is not
        return twin

    def offset(self, *parameters: Tensor) -> Tensor | None:
        """Real value of the code 0, the shape of the scale; None for zero."""
        return None

    def bind(self, x: Tensor, *parameters: Tensor) -> BoundKernel:
        """What :meth:`forward` and :meth:`backward` share, computed once.

        A family that has another way than operations of torch, on some device, chooses it here.
        """
        whole = self.axis is not None or is_one_block(x) and not self.is_compiled
        return ByOperations(self, self.terms(x, *parameters), whole)

    def terms(self, x: Tensor, *parameters: Tensor) -> Any:
        """What the formulas need besides ``x``: the scale, the mean of ``x``, ..."""
        raise NotImplementedError

    def parameter_gradient_factor(self, x: Tensor) -> float:
        """Factor of the gradients of the parameters; by default 1."""
        return 1.0

    def codes(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Integer codes of ``x``, as floating-point values."""
        codes, terms = torch.empty_like(x), self.terms(x, *parameters)
        for x_part, part in blocks(x, codes) if self.axis is None else [(x, codes)]:
            self._write_codes(part, x_part, terms)
        return codes

    def forward(self, x: Tensor, *parameters: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The fake-quantized tensor, of the shape of ``x``.

        Args:
            x: Any shape. Half precision is computed with in float32.
            *parameters: Learned tensors.
            dtype: Of the result; None for that of ``x``.
        """
        return self.bind(x, *parameters).fake_quantize(x, dtype)

    def backward(self, grad: Tensor, x: Tensor, fake_quantized: Tensor, *parameters:
                 Tensor) -> tuple[Tensor, ...]:
        """Gradients of ``x``, in its dtype, and of each parameter.

        Args:
            grad: Gradient of the output; it may be overwritten.
            x: Input of :meth:`forward`.
            fake_quantized: Output of :meth:`forward`, of any dtype: in half precision it is not
                exact, and computed again.
            *parameters: As for :meth:`forward`.
        """
        return self.bind(x, *parameters).gradients(grad, x, fake_quantized)

    def _apply(self, function: Callable, terms: Any, *tensors: Tensor) -> list:
        """Results of ``function`` for all parts of the tensors, in the cheapest way there is."""
        if self.is_compiled:
            flat = flat_for_one_pass(*tensors)
            if flat is not None:
                return [one_pass(function, terms, *flat)]
        return [function(terms, *parts) for parts in blocks(*tensors)]

    def _fake_quantize(self, terms: Any, out: Tensor, x: Tensor) -> None:
        if out.dtype == x.dtype and x.dtype in _COMPUTED_AS_THEY_ARE:
            self._write_codes(out, x, terms)
            self._dequantize(out, terms)
            return
        x = compute_dtype(x)
        fake_quantized = torch.empty_like(x)
        self._write_codes(fake_quantized, x, terms)
        self._dequantize(fake_quantized, terms)
        out.copy_(fake_quantized)

    def _differentiate(self,
                       terms: Any,
                       grad: Tensor,
                       x: Tensor,
                       fake_quantized: Tensor | None = None) -> tuple[Tensor, ...]:
        if fake_quantized is not None and grad.dtype == x.dtype == fake_quantized.dtype:
            return self._gradients(grad, x, fake_quantized, terms)
        x, computed = compute_dtype(x), compute_dtype(grad)
        if fake_quantized is None:
            fake_quantized = torch.empty_like(x)
            self._fake_quantize(terms, fake_quantized, x)
        gradients = self._gradients(computed, x, fake_quantized, terms)
        if computed is not grad:
            grad.copy_(computed)
        return gradients

    def _write_codes(self, out: Tensor, x: Tensor, terms: Any) -> None:
        """Write the integer codes of ``x`` to ``out``."""
        raise NotImplementedError

    def _dequantize(self, codes: Tensor, terms: Any) -> None:
        """Turn ``codes`` into real values, in place."""
        raise NotImplementedError

    def _gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor,
                   terms: Any) -> tuple[Tensor, ...]:
        """Overwrite ``grad`` by the gradient of ``x``; return those of the parameters."""
        raise NotImplementedError


class ByOperations(NamedTuple):
    """The quantization of one tensor by operations of torch.

    Attributes:
        kernel: Its formulas.
        terms: What they need besides the tensor.
        whole: Whether they are applied to the tensor as it is, not to parts of it.
    """

    kernel: FakeQuantizeKernel
    terms: Any
    whole: bool

    def fake_quantize(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        kernel, fake_quantized = self.kernel, torch.empty_like(x, dtype=dtype)
        if self.whole:
            kernel._fake_quantize(self.terms, fake_quantized, x)
        else:
            kernel._apply(kernel._fake_quantize, self.terms, fake_quantized, x)
        return fake_quantized

    def gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor) -> tuple[Tensor, ...]:
        kernel, dtype = self.kernel, x.dtype
        if grad.dtype != dtype:
            grad = grad.to(torch.promote_types(grad.dtype, dtype))
        known = (fake_quantized, ) if fake_quantized.dtype == _computing(dtype) else ()
        if self.whole:
            sums = kernel._differentiate(self.terms, grad, x, *known)
        else:
            parts = kernel._apply(kernel._differentiate, self.terms, grad, x, *known)
            sums = parts[0] if len(parts) == 1 else [
                torch.stack(part).sum(dim=0) for part in zip(*parts)
            ]
        factor = kernel.parameter_gradient_factor(x)
        if factor != 1:
            sums = [each * factor for each in sums]
        return (grad if grad.dtype == dtype else grad.to(dtype), *sums)


class FloatKernel(FakeQuantizeKernel):
    """No quantization: stands where a tensor is left as it is, but for its dtype."""

    def bind(self, x: Tensor) -> FloatKernel:
        return self

    def fake_quantize(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return x if dtype is None else x.to(dtype)

    def gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor) -> tuple[Tensor]:
        return (grad.to(x.dtype), )


#: The one kernel that does nothing
FLOAT = FloatKernel()


def per_channel(values: Tensor, like: Tensor, axis: int | None) -> Tensor:
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


def dot(x: Tensor, y: Tensor, axis: int | None = None) -> Tensor:
    """Sum of ``x * y`` over all axes but ``axis``. ``x`` may be overwritten."""
    if axis is None:
        return torch.dot(x.reshape(-1), y.reshape(-1))
    kept = axis % x.dim()
    return x.mul_(y).sum([dim for dim in range(x.dim()) if dim != kept])


def compute_dtype(x: Tensor) -> Tensor:
    """``x`` in the dtype that kernels compute in: float32 for half precision, else its own."""
    return x if x.dtype in _COMPUTED_AS_THEY_ARE else x.to(_computing(x.dtype))


def _computing(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _COMPUTED_AS_THEY_ARE else torch.promote_types(dtype, torch.float32)
