"""Compiled kernels: the numbers of those that are not, and where they apply."""
from __future__ import annotations

import copy
import shutil
from typing import Any, Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

from mmaqd.functional import (ConvGeometry, LIQActivationKernel, LIQWeightKernel, compile_kernels,
                              kernels_are_compiled, one_pass, quant_conv2d)
from mmaqd.quantizers import LIQActivationQuantizer
from tests.functional.families import Case, activations, weights

SHAPE = (2, 3, 4, 5)
PER_TENSOR = {
    f'{side}-{name}': case
    for side, cases in (('activation', activations(3)), ('weight', weights(3)))
    for name, case in cases.items() if case.kernel.axis is None and name != 'dorefa_clip'
}

needs_compiler = pytest.mark.skipif(
    shutil.which('g++') is None, reason='torch compiles for a CPU with g++, which is not there')


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The methods of kernels that were called compiled."""
    names: list[str] = []
    original = one_pass._compiled

    def recorded(function: Callable, kernel: Any) -> Callable:
        names.append(function.__name__)
        return original(function, kernel)

    monkeypatch.setattr(one_pass, '_compiled', recorded)
    return names


def contiguous(*shape: int) -> Tensor:
    return torch.randn(shape)


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def transposed(*shape: int) -> Tensor:
    return torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))


def results(case: Case, x: Tensor, grad: Tensor, on: bool) -> tuple[Tensor, ...]:
    """Output, gradient of the input, gradients of the parameters."""
    kernel, parameters = case.kernel.compiled(on), case.parameters(device=x.device)
    quantized = kernel.forward(x, *parameters)
    return quantized, *kernel.backward(grad.clone(), x, quantized, *parameters)


def check(case: Case, x: Tensor, grad: Tensor) -> None:
    exact, (quantized, grad_x, *rest) = (results(case, x, grad, on) for on in (False, True))
    assert torch.equal(quantized, exact[0]) and quantized.stride() == x.stride()
    assert torch.equal(grad_x, exact[1]) and grad_x.dtype == x.dtype
    for pair in zip(rest, exact[2:]):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize('case', PER_TENSOR.values(), ids=PER_TENSOR.keys())
def test_compiled_kernels_give_the_same_numbers(case: Case, calls: list,
                                                device: torch.device) -> None:
    torch.manual_seed(0)
    check(case, torch.randn(SHAPE, device=device), torch.randn(SHAPE, device=device))
    # The weights of DoReFa take the maximum of the whole tensor first: no part of it is compiled.
    # LIQ has kernels of its own on a GPU.
    family = type(case.kernel).__name__
    is_compiled = family != 'DoReFaWeightKernel' and (device.type == 'cpu' or 'LIQ' not in family)
    assert calls == (['_fake_quantize', '_differentiate'] if is_compiled else [])


def of_one_family(device: torch.device) -> Case:
    return activations(3)['liq' if device.type == 'cpu' else 'lsq']


@needs_compiler
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, calls: list,
                                               device: torch.device) -> None:
    torch.manual_seed(0)
    x, grad = (torch.randn(SHAPE).to(device, dtype) for _ in range(2))
    check(of_one_family(device), x, grad)
    assert calls == ['_fake_quantize', '_differentiate']


@needs_compiler
@pytest.mark.parametrize('make', [channels_last, transposed], ids=lambda make: make.__name__)
def test_other_layouts(make: Callable, calls: list, device: torch.device) -> None:
    torch.manual_seed(0)
    check(of_one_family(device), make(*SHAPE).to(device), make(*SHAPE).to(device))
    assert bool(calls) == (make is channels_last)


@needs_compiler
def test_each_kernel_is_compiled_once_whatever_the_length(calls) -> None:
    torch._dynamo.reset()
    counters.clear()
    interval = torch.tensor(1.5)
    for bits in range(2, 9):
        for size in (20, 30, 4096, 5000):
            LIQActivationKernel(bits).compiled().forward(torch.rand(size), interval)
    assert counters['frames']['ok'] == counters['frames']['total'] == 7


def test_they_are_off_at_first_and_no_process_switches_them(calls: list) -> None:
    LIQActivationKernel(4).forward(torch.rand(8), torch.tensor(1.5))
    assert not calls
    with pytest.raises(TypeError, match=r'belongs to a model.*compile_kernels\(model=model\)'):
        compile_kernels()


@pytest.mark.parametrize(
    'kernel, shape, device', [
        (LIQActivationKernel(4), (0, 3), 'cpu'),
        (LIQActivationKernel(4), (1, ), 'cpu'),
        (LIQActivationKernel(4), (2, 3), 'meta'),
        (LIQWeightKernel(4, axis=0), (2, 3), 'cpu'),
    ],
    ids=['empty', 'one element', 'meta', 'per channel'])
def test_where_they_do_not_apply(kernel, shape: tuple, device: str, calls: list) -> None:
    kernel, x = kernel.compiled(), torch.ones(shape, device=device)
    interval = torch.ones(shape[:1] if kernel.axis == 0 else (), device=device)
    quantized = kernel.forward(x, interval)
    assert kernel.backward(torch.ones_like(x), x, quantized, interval)[0].shape == shape
    assert not calls


@needs_compiler
def test_conv_trains_with_them(calls: list) -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        leaves = [
            torch.rand(2, 3, 6, 6),
            torch.randn(4, 3, 3, 3),
            torch.tensor(0.7),
            torch.tensor(1.5)
        ]
        x, weight, *intervals = (leaf.requires_grad_() for leaf in leaves)
        y = quant_conv2d(
            x,
            weight,
            None,
            ConvGeometry(),
            input_parameters=(intervals[0], ),
            weight_parameters=(intervals[1], ),
            input_kernel=LIQActivationKernel(4).compiled(on),
            weight_kernel=LIQWeightKernel(4, True).compiled(on))
        y.square().sum().backward()
        gradients.append([y.detach(), *(leaf.grad for leaf in leaves)])
    assert calls.count('_fake_quantize') == 4 and calls.count('_differentiate') == 2
    for expected, found in zip(*gradients):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_a_model_has_a_switch_of_its_own(calls: list) -> None:
    quantizers = [LIQActivationQuantizer(4, start='constant') for _ in range(2)]
    model, other = (nn.Sequential(quantizer) for quantizer in quantizers)
    compile_kernels(True, model)
    assert kernels_are_compiled(model) and not kernels_are_compiled(other)
    x = torch.rand(2, 3)
    expected = other(x)
    assert not calls
    assert torch.equal(model(x), expected) and calls
    calls.clear()
    assert torch.equal(copy.deepcopy(model)(x), expected) and calls
    compile_kernels(False, model)
    calls.clear()
    model(x)
    assert not kernels_are_compiled(model) and not calls


def test_a_compiled_kernel_is_the_same_kernel() -> None:
    kernel = LIQWeightKernel(4, axis=0)
    assert kernel.compiled() == kernel and repr(kernel.compiled()) == repr(kernel)
    assert not kernel.is_compiled and kernel.compiled().is_compiled


def test_a_model_without_quantizers_has_no_switch() -> None:
    model = nn.Linear(1, 1)
    compile_kernels(True, model)
    assert not kernels_are_compiled(model)
