"""Learned interval quantization on a GPU: one pass over memory forward, and one backward.

Triton functions for what :mod:`mmaqd.functional.liq` composes from operations, with the same
numbers but for the order in which the gradient of the interval is summed. torch brings Triton where
it is built for a GPU; without it, and for what :func:`fits` says no to, the operations are used.
"""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Callable

import torch
from torch import Tensor

from .blocks import is_channels_last, is_compiling
from .grid import IntegerGrid, unsigned_grid
from .ranges import MIN_INTERVAL

try:
    import triton
    import triton.language as tl
except ImportError:  # a torch for CPUs comes without
    triton = tl = None

_BLOCK = 4096  # elements of one program: 16 for each of the 256 threads
_THREADS = dict(num_warps=8, enable_fp_fusion=False)  # a fused multiply-add would round once less
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_TYPES = (Tensor, torch.nn.Parameter)  # those with memory: no tensor that only stands for one

jit: Callable = triton.jit if triton else lambda function: function


@jit
def _round_half_even(x):
    """As torch.round, of -2^22 to 2^22: adding 1.5 * 2^23 leaves no bits behind the point."""
    return (x + 12582912.0) - 12582912.0


@jit
def _floored(interval, LEAST: tl.constexpr):
    return tl.maximum(tl.load(interval), LEAST, propagate_nan=tl.PropagateNan.ALL)


@jit
def _normalized(x, mean, std, at, inside):
    """(x - mean)/std in float32, without what is None."""
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if mean is not None:
        values = values - tl.load(mean)
    if std is not None:
        values = tl.div_rn(values, tl.load(std))
    return values


@jit
def _fake_quantized(x, interval, QMAX: tl.constexpr, LOW: tl.constexpr, ODD: tl.constexpr):
    ratio = tl.clamp(tl.div_rn(x, interval), LOW, 1.0, propagate_nan=tl.PropagateNan.ALL)
    if ODD:
        codes = _round_half_even((ratio + 1.0) * (QMAX / 2)) * 2.0 - QMAX
    else:
        codes = _round_half_even(ratio * QMAX)
    return codes * tl.div_rn(interval, QMAX)


@jit
def _fake_quantize(x, out, interval, mean, std, numel, QMAX: tl.constexpr, LOW: tl.constexpr,
                   ODD: tl.constexpr, MIN_INTERVAL: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    values = _normalized(x, mean, std, at, inside)
    fake_quantized = _fake_quantized(values, _floored(interval, MIN_INTERVAL), QMAX, LOW, ODD)
    tl.store(out + at, fake_quantized, mask=inside)


@jit
def _differentiate(grad, x, out, sums, interval, mean, std, factor, numel, QMAX: tl.constexpr,
                   LOW: tl.constexpr, ODD: tl.constexpr, MIN_INTERVAL: tl.constexpr,
                   BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    values = _normalized(x, mean, std, at, inside)
    upstream = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    floored = _floored(interval, MIN_INTERVAL)
    passes = ((values >= LOW * floored) & (values <= floored)).to(tl.float32)
    error = _fake_quantized(values, floored, QMAX, LOW, ODD) - passes * values
    tl.store(sums + tl.program_id(0), tl.sum(error * upstream) / floored * factor)
    downstream = upstream * passes
    if std is not None:
        downstream = tl.div_rn(downstream, tl.load(std))
    tl.store(out + at, downstream, mask=inside)


@dataclass(frozen=True)
class LIQOnGPU:
    """One tensor's quantization.

    Args:
        grid: The codes k; values are clipped at ``interval``, where k is ``grid.qmax``, and at
            minus that or zero.
        interval: Scalar.
        mean: Scalar that is subtracted first; None for none.
        std: Scalar that is divided by after that; None for none.
        factor: Of the gradient of the interval.
    """

    grid: IntegerGrid
    interval: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    factor: float = 1.0

    def fake_quantize(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The fake-quantized tensor in ``dtype``, by default that of ``x``."""
        out, programs = torch.empty_like(x, dtype=dtype), (_num_programs(x), )
        with torch.cuda.device_of(x):
            _fake_quantize[programs](x, out, self.interval, self.mean, self.std, x.numel(),
                                     **_options(self.grid), **_THREADS)
        return out

    def gradients(self, grad: Tensor, x: Tensor, fake_quantized: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of ``x``, in its dtype, and of the interval.

        ``grad`` may be overwritten; ``fake_quantized`` is computed again.
        """
        if grad.stride() != x.stride():
            grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
        out = grad if grad.dtype == x.dtype else torch.empty_like(x)
        programs = (_num_programs(x), )
        sums = x.new_empty(programs, dtype=torch.float32)
        with torch.cuda.device_of(x):
            _differentiate[programs](grad, x, out, sums, self.interval, self.mean, self.std,
                                     self.factor, x.numel(), **_options(self.grid), **_THREADS)
        return out, sums.sum()


def _options(grid: IntegerGrid) -> dict:
    return dict(
        QMAX=grid.qmax,
        LOW=-1 if grid.signed else 0,
        ODD=grid.step == 2,
        MIN_INTERVAL=MIN_INTERVAL,
        BLOCK=_BLOCK)


def fits(x: Tensor, interval: Tensor) -> bool:
    """Whether the Triton functions apply: on a GPU, dense, no more values than they can count."""
    return (triton is not None and x.is_cuda and type(x) in _TYPES and x.dtype in _DTYPES
            and interval.dtype == torch.float32 and interval.dim() == 0
            and 0 < x.numel() < 2**31 - _BLOCK and (x.is_contiguous() or is_channels_last(x))
            and not is_compiling() and not torch.jit.is_tracing() and _works(x.device))


@lru_cache(maxsize=None)
def _works(device: torch.device) -> bool:
    """Whether Triton compiles for that GPU on this machine, where it needs a C compiler."""
    try:
        LIQOnGPU(unsigned_grid(4), torch.ones(
            (), device=device)).fake_quantize(torch.ones(1, device=device))
    except Exception as error:  # of whatever kind a compiler's failure is
        warnings.warn(
            f'Triton could not compile for {device}: {type(error).__name__}: {error}\n'
            'Training goes on with operations of torch, which takes longer. Install a C compiler '
            '(gcc), or the Triton that came with this torch.')
        return False
    return True


def _num_programs(x: Tensor) -> int:
    return (x.numel() + _BLOCK - 1) // _BLOCK
