"""Quantized conv and fake quantization as operators of torch, for what looks at a model as a graph.

``torch.export`` calls each in place of the many operations that it consists of, so that an exported
program has one node for it, which says all about it: the learned tensors are its inputs, the rest
is text and numbers.
"""
from __future__ import annotations

import ast
from functools import lru_cache
from typing import List, Optional  # in what torch 2.4 reads: it knows no other spelling

import torch
from torch import Tensor

from .dorefa import DoReFaActivationKernel, DoReFaWeightKernel
from .fake_quantize import fake_quantize
from .kernels import FakeQuantizeKernel
from .liq import LIQActivationKernel, LIQWeightKernel
from .lsq import LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel
from .pact import PACTActivationKernel
from .quant_conv import ConvGeometry, quant_conv2d
from .stored import StoredWeightKernel

_KERNELS: dict[str, type[FakeQuantizeKernel]] = {}


def register_kernel(kernel: type[FakeQuantizeKernel]) -> type[FakeQuantizeKernel]:
    """Let :func:`kernel_from_text` know a family's kernel, a frozen dataclass; a decorator."""
    _KERNELS[kernel.__name__] = kernel
    return kernel


for _kernel in (DoReFaActivationKernel, DoReFaWeightKernel, LIQActivationKernel, LIQWeightKernel,
                LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel, PACTActivationKernel,
                StoredWeightKernel):
    register_kernel(_kernel)


def kernel_to_text(kernel: FakeQuantizeKernel | None) -> str:
    """A kernel as text; the empty text for None.

    Example:
        >>> kernel_to_text(PACTActivationKernel(4))
        'PACTActivationKernel(bit_width=4)'
    """
    return '' if kernel is None else repr(kernel)


@lru_cache(maxsize=None)
def kernel_from_text(text: str) -> FakeQuantizeKernel | None:
    """The kernel that :func:`kernel_to_text` wrote; nothing in the text is run.

    Raises:
        ValueError: It is no such text, or names an unknown kernel.
    """
    if not text:
        return None
    try:
        call = ast.parse(text, mode='eval').body
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return _KERNELS[call.func.id](**arguments)
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f'{text!r} is no quantization; known are '
                         f'{", ".join(sorted(_KERNELS))}, each with its arguments.') from error


@torch.library.custom_op('mmaqd::quant_conv2d', mutates_args=())
def quant_conv2d_op(x: Tensor, weight: Tensor, bias: Optional[Tensor],
                    input_parameters: List[Tensor], weight_parameters: List[Tensor],
                    input_kernel: str, weight_kernel: str, stride: List[int], padding: List[int],
                    dilation: List[int], groups: int) -> Tensor:
    """:func:`mmaqd.functional.quant_conv2d` with kernels as text, without a gradient.

    It is called as ``torch.ops.mmaqd.quant_conv2d``. Shapes are those of the function.
    """
    geometry = ConvGeometry(tuple(stride), tuple(padding), tuple(dilation), groups)
    with torch.no_grad():
        return quant_conv2d(
            x,
            weight,
            bias,
            geometry,
            input_kernel=kernel_from_text(input_kernel),
            input_parameters=tuple(input_parameters),
            weight_kernel=kernel_from_text(weight_kernel),
            weight_parameters=tuple(weight_parameters))


@quant_conv2d_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Optional[Tensor], input_parameters: List[Tensor],
      weight_parameters: List[Tensor], input_kernel: str, weight_kernel: str, stride: List[int],
      padding: List[int], dilation: List[int], groups: int) -> Tensor:
    return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


@torch.library.custom_op('mmaqd::fake_quantize', mutates_args=())
def fake_quantize_op(x: Tensor, parameters: List[Tensor], kernel: str) -> Tensor:
    """:func:`mmaqd.functional.fake_quantize` with its kernel as text, without a gradient.

    It is called as ``torch.ops.mmaqd.fake_quantize``.
    """
    with torch.no_grad():
        return fake_quantize(x, kernel_from_text(kernel), *parameters)


@fake_quantize_op.register_fake
def _(x: Tensor, parameters: List[Tensor], kernel: str) -> Tensor:
    return torch.empty_like(x)
