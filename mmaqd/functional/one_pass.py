"""Kernels compiled into one pass over memory each, where that is switched on.

Quantizing is a handful of elementwise operations, and what they cost is memory traffic. torch's
compiler makes one loop (on a GPU one Triton function) of them, that also converts half precision on
its way. The numbers are those of the operations one by one, except that sums may be taken in
another order. The first use compiles for some seconds; later processes find the result on the disk.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable

import torch
from torch import Tensor, nn

from .blocks import flattened, is_compiling

_DEVICES = ('cpu', 'cuda')


def compile_kernels(on: bool = True, model: nn.Module | None = None) -> None:
    """Compile the kernels of a model's quantizers, or do so no longer; they are not at first.

    A model that is compiled as a whole (``torch.compile(model)``) needs no switch.

    Args:
        on: Whether kernels with one set of parameters for the whole tensor are compiled from now
            on. Others, as those of weights quantized per channel, never are.
        model: The model whose quantizers are switched.

    Raises:
        TypeError: No model was given. A kernel alone has a compiled twin,
            :meth:`FakeQuantizeKernel.compiled`.
    """
    if model is None:
        raise TypeError('compile_kernels: which kernels are compiled belongs to a model; give it: '
                        'compile_kernels(model=model).')
    for module in _with_kernels(model):
        module.kernel = module.kernel.compiled(on)


def kernels_are_compiled(model: nn.Module) -> bool:
    """Whether :func:`compile_kernels` has switched them on for a model."""
    found = [module.kernel.is_compiled for module in _with_kernels(model)]
    return bool(found) and all(found)


def _with_kernels(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that hold a kernel: its quantizers."""
    return [
        module for module in model.modules() if hasattr(vars(module).get('kernel'), 'is_compiled')
    ]


def flat_for_one_pass(*tensors: Tensor) -> list[Tensor] | None:
    """Tensors of one shape as vectors for :func:`one_pass`; None where it does not apply."""
    x = tensors[0]
    # The compiler would make a version of its own for vectors of one element, and for none.
    if is_compiling() or x.numel() < 2 or x.device.type not in _DEVICES:
        return None
    flat = None if torch.jit.is_tracing() else flattened(tensors)
    # Through `.data`, as the compiler makes a version for each shape and each history of a view.
    return None if flat is None else [vector.data for vector in flat]


@torch.no_grad()
def one_pass(method: Callable, *args: Any) -> Any:
    """``method(*args)`` of a kernel, compiled for vectors of any length."""
    return _compiled(method.__func__, method.__self__)(*args)


@lru_cache(maxsize=None)
def _compiled(function: Callable, kernel: Any) -> Callable:
    """One for all kernels that are equal."""

    def run(*args: Any) -> Any:
        return function(kernel, *args)

    # The compiler limits the versions of each code object: every kernel has one of its own.
    run.__code__ = run.__code__.replace()
    return torch.compile(run, dynamic=True, options=_exact_division())


def _exact_division() -> dict[str, bool]:
    """Options with which code for a GPU divides as torch does; empty where torch has none."""
    from torch._inductor import config
    name = 'division_rounding'
    return {
        f'eager_numerics.{name}': True
    } if hasattr(getattr(config, 'eager_numerics', None), name) else {}
