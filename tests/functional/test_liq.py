"""LIQ kernels against the formulas: forward and every gradient, at every bit width."""
from __future__ import annotations

import math
from dataclasses import replace
from typing import Callable

import pytest
import torch
from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, fake_quantize
from tests.functional.reference import (activation_point, composed_activation, composed_weight,
                                        every_normalization, tabulate, weight_point)

ACTIVATION_BITS = range(2, 9)
WEIGHT_BITS = range(1, 9)
KERNELS = ([(LIQActivationKernel(bits), activation_point)
            for bits in ACTIVATION_BITS] + [(LIQWeightKernel(bits), weight_point)
                                            for bits in WEIGHT_BITS])
KERNEL_IDS = [
    f'{"activation" if k.__class__ is LIQActivationKernel else "weight"}{k.bit_width}'
    for k, _ in KERNELS
]
all_kernels = pytest.mark.parametrize(('kernel', 'point'), KERNELS, ids=KERNEL_IDS)


def gradients(function: Callable[..., Tensor], upstream: Tensor, *inputs:
              Tensor) -> tuple[Tensor, ...]:
    """Output and gradients of ``inputs`` for a given gradient of the output."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, upstream))


def kernel_gradients(kernel: object, grad: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and the interval, straight from the kernel."""
    return kernel.backward(grad.clone(), x, kernel.forward(x, v), v)


def eighths(kernel: object, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Numbers and an interval with which the formulas are exact in binary: v = n/16.

    The numbers lie at odd eighths of a step, so away from ties, and reach beyond [-v, v].
    """
    n = kernel.qmax
    return torch.arange(
        -10 * n - 3, 10 * n + 4, 2, dtype=dtype) / 128, torch.tensor(n / 16).to(dtype)


@all_kernels
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_exact_where_the_numbers_are_dyadic(kernel, point, dtype: torch.dtype) -> None:
    x, v = eighths(kernel, dtype)
    expected = tabulate(point, x.tolist(), v.item(), kernel.bit_width)
    assert torch.equal(kernel.codes(x, v).double(), expected['code'])
    assert torch.equal(kernel.forward(x, v).double(), expected['value'])
    assert torch.equal(
        kernel_gradients(kernel, torch.ones_like(x), x, v)[0].double(), expected['d_x'])


@pytest.mark.parametrize(
    ('kernel', 'point'),
    [pair for pair in KERNELS if pair[1] is activation_point or pair[0].bit_width in (1, 2, 8)],
    ids=lambda k: f'{type(k).__name__}{getattr(k, "bit_width", "")}')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_ties_go_to_the_even_code(kernel, point, dtype: torch.dtype) -> None:
    """The widths at which every tie is exact in binary; the tie at weight 0 is tested for all."""
    n = kernel.qmax
    x, v = torch.arange(-2 * n, 2 * n + 1, dtype=dtype) / 32, torch.tensor(n / 16).to(dtype)
    expected = tabulate(point, x.tolist(), v.item(), kernel.bit_width)
    assert torch.equal(kernel.codes(x, v).double(), expected['code'])


@all_kernels
def test_interval_gradient_is_the_sum_over_the_numbers(kernel, point) -> None:
    x, v = eighths(kernel, torch.float64)
    expected = tabulate(point, x.tolist(), v.item(), kernel.bit_width)['d_v']
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        grad = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        found = kernel_gradients(kernel, grad, x, v)[1]
        torch.testing.assert_close(found, (grad * expected).sum(), rtol=1e-12, atol=1e-12)


@all_kernels
@pytest.mark.parametrize('v', [0.25, 1.0, 1.7, 3.0])
def test_edges_of_the_interval(kernel, point, v: float) -> None:
    x = torch.tensor([-v, v], dtype=torch.float64)
    up, down = torch.tensor(math.inf).double(), torch.tensor(-math.inf).double()
    x = torch.cat([x, x.nextafter(up), x.nextafter(down), torch.tensor([0.0, 2.0**-30, -2.0**-30])])
    expected = tabulate(point, x.tolist(), v, kernel.bit_width)
    interval = torch.tensor(v, dtype=torch.float64)
    for i, one in enumerate(x.split(1)):
        d_x, d_v = kernel_gradients(kernel, torch.ones_like(one), one, interval)
        assert kernel.codes(one, interval).item() == expected['code'][i]
        assert d_x.item() == expected['d_x'][i]
        assert d_v.item() == pytest.approx(expected['d_v'][i].item(), abs=1e-15)


@pytest.mark.parametrize('bits', ACTIVATION_BITS)
@pytest.mark.parametrize('shape', [(), (7, ), (2, 3, 5, 4)], ids=str)
def test_activation_equals_the_composition(bits: int, shape: tuple) -> None:
    x, upstream = torch.randn(2, *shape, dtype=torch.float64)
    v = torch.tensor(0.9, dtype=torch.float64)
    kernel = LIQActivationKernel(bits)
    found = gradients(lambda x, v: fake_quantize(x, kernel, v), upstream, x, v)
    expected = gradients(lambda x, v: composed_activation(x, v, bits), upstream, x, v)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('bits', WEIGHT_BITS)
@pytest.mark.parametrize('axis', [None, 0], ids=['per_tensor', 'per_channel'])
@every_normalization
def test_weight_equals_the_composition(bits: int, axis: int | None, normalize: bool,
                                       center: bool) -> None:
    w, upstream = 0.3 + torch.randn(2, 6, 3, 3, 2, dtype=torch.float64)
    v = torch.tensor(1.3) if axis is None else torch.linspace(0.2, 2.5, 6)
    v = v.double()
    kernel = LIQWeightKernel(bits, normalize, axis, center=center)
    found = gradients(lambda w, v: fake_quantize(w, kernel, v), upstream, w, v)
    expected = gradients(lambda w, v: composed_weight(w, v, bits, normalize, center), upstream, w,
                         v)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('bits', WEIGHT_BITS)
@pytest.mark.parametrize('factor', [False, True], ids=['plain', 'gradient_factor'])
def test_per_channel_is_per_tensor_for_each_channel(bits: int, factor: bool) -> None:
    w, upstream = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    v = torch.tensor([0.3, 0.8, 1.5, 4.0], dtype=torch.float64)
    per_channel = LIQWeightKernel(bits, axis=0, gradient_factor=factor)
    per_tensor = LIQWeightKernel(bits, gradient_factor=factor)
    found_w, found_v = kernel_gradients(per_channel, upstream, w, v)
    assert torch.equal(per_channel.scale(v), torch.stack([per_tensor.scale(one) for one in v]))
    for i in range(4):
        assert torch.equal(per_channel.forward(w, v)[i], per_tensor.forward(w[i], v[i]))
        grad_w, grad_v = kernel_gradients(per_tensor, upstream[i], w[i], v[i])
        assert torch.equal(found_w[i], grad_w)
        torch.testing.assert_close(found_v[i], grad_v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('kernel', 'shape', 'v', 'factor'), [
    (LIQActivationKernel(3), (5, 4, 2), 1.0, 1 / math.sqrt(8 * 7)),
    (LIQActivationKernel(3), (8, ), 1.0, 1 / math.sqrt(8 * 7)),
    (LIQWeightKernel(4), (5, 8), 1.0, 1 / math.sqrt(40 * 15)),
    (LIQWeightKernel(8), (5, 8), 1.0, 1 / math.sqrt(40 * 127)),
    (LIQWeightKernel(2, axis=0), (5, 8), [1.0] * 5, 1 / math.sqrt(8 * 3)),
],
                         ids=['activation', 'one_sample', 'weight', 'weight8', 'per_channel'])
def test_gradient_factor_scales_the_interval_gradient_only(kernel, shape, v, factor) -> None:
    x, grad = torch.randn(2, *shape, dtype=torch.float64)
    v = torch.tensor(v, dtype=torch.float64)
    scaled = replace(kernel, gradient_factor=True)
    grad_x, grad_v = kernel_gradients(kernel, grad, x, v)
    scaled_x, scaled_v = kernel_gradients(scaled, grad, x, v)
    assert torch.equal(scaled_x, grad_x)
    torch.testing.assert_close(scaled_v, grad_v * factor, rtol=1e-12, atol=0)


@all_kernels
@pytest.mark.parametrize('bad', [0.0, -3.0], ids=str)
def test_interval_is_floored_and_can_grow_again(kernel, point, bad: float) -> None:
    x = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    smallest = torch.tensor(1e-6, dtype=torch.float64)
    bad = torch.tensor(bad, dtype=torch.float64)
    assert torch.equal(kernel.forward(x, bad), kernel.forward(x, smallest))
    assert kernel.scale(bad) > 0
    # A loss that falls when the output grows pushes the interval up.
    grad_x, grad_v = kernel_gradients(kernel, -torch.ones_like(x), x, bad)
    assert grad_v.item() == pytest.approx(-3)
    assert not grad_x.any()


@all_kernels
def test_zeros_are_finite(kernel, point) -> None:
    x, v = torch.zeros(4, 3), torch.tensor(1.0)
    found = (kernel.forward(x, v), *kernel_gradients(kernel, torch.ones_like(x), x, v))
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize('constant', [0.0, 0.1, -7.3], ids=str)
@pytest.mark.parametrize('center', [True, False], ids=['centered', 'scaled'])
def test_constant_weights_are_finite_when_normalized(constant: float, center: bool) -> None:
    w = torch.full((4, 3, 3, 3), constant)
    kernel, v = LIQWeightKernel(4, normalize=True, center=center), torch.tensor(1.0)
    found = (kernel.forward(w, v), *kernel_gradients(kernel, torch.ones_like(w), w, v))
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize('bits', [1, 4, 8])
def test_a_channel_of_zeros_leaves_the_others_alone(bits: int) -> None:
    w = torch.randn(3, 5)
    v = torch.tensor([1.0, 0.5, 2.0])
    zeroed = w.clone()
    zeroed[1] = 0
    kernel = LIQWeightKernel(bits, axis=0)
    found, expected = (kernel.forward(x, v)[[0, 2]] for x in (zeroed, w))
    assert torch.equal(found, expected)
    assert kernel.forward(zeroed, v).isfinite().all()


@all_kernels
def test_huge_numbers_are_clipped_like_any_other(kernel, point) -> None:
    x, v = torch.tensor([1e38, -1e38, 3e38]), torch.tensor(0.5)
    low = 0.0 if isinstance(kernel, LIQActivationKernel) else -0.5
    assert kernel.forward(x, v).tolist() == pytest.approx([0.5, low, 0.5])
    grad_x, grad_v = kernel_gradients(kernel, torch.ones_like(x), x, v)
    assert grad_x.tolist() == [0, 0, 0]
    assert grad_v.item() == pytest.approx(2 + low / 0.5)


@all_kernels
@pytest.mark.parametrize('factor', [False, True], ids=['plain', 'gradient_factor'])
def test_empty_tensor(kernel, point, factor: bool) -> None:
    kernel = type(kernel)(kernel.bit_width, gradient_factor=factor)
    x, v = torch.empty(0, 3), torch.tensor(1.0)
    assert kernel.forward(x, v).shape == (0, 3)
    grad_x, grad_v = kernel_gradients(kernel, torch.empty(0, 3), x, v)
    assert grad_x.shape == (0, 3)
    assert grad_v == 0


@all_kernels
@every_normalization
def test_only_the_gradient_is_overwritten(kernel, point, normalize: bool, center: bool) -> None:
    if isinstance(kernel, LIQWeightKernel):
        kernel = LIQWeightKernel(kernel.bit_width, normalize, center=center)
    x, grad, v = torch.randn(9), torch.randn(9), torch.tensor(0.7)
    quantized = kernel.forward(x, v)
    given = (x, quantized, v)
    kept = [part.clone() for part in given]
    kernel.codes(x, v)
    assert kernel.backward(grad, *given)[0] is grad
    assert all(torch.equal(*pair) for pair in zip(given, kept))
