"""PACT kernel against the formulas: forward and both gradients, at every bit width."""
from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from mmaqd.functional import PACTActivationKernel, fake_quantize
from tests.functional.reference import Point, tabulate

every_width = pytest.mark.parametrize('bits', range(2, 9))


def point(x: float, alpha: float, bits: int) -> Point:
    """Q = alpha round(n y/alpha)/n of y = clip(x, 0, alpha); alpha's gradient is 1 from alpha on.
    """
    x, alpha, n = Fraction(x), Fraction(alpha), 2**bits - 1
    clipped = min(max(x, Fraction(0)), alpha)
    code = round(n * clipped / alpha)
    return Point(code, alpha * code / n, int(0 <= x < alpha), Fraction(int(x >= alpha)))


def gradients(kernel, grad: Tensor, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Straight from the kernel."""
    return kernel.backward(grad.clone(), x, kernel.forward(x, alpha), alpha)


def numbers(bits: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """With alpha = n/16 every formula is exact in binary; odd eighths of a step are no ties."""
    n = 2**bits - 1
    return torch.arange(-33, 8 * n + 34, 2, dtype=dtype) / 128, torch.tensor(n / 16).to(dtype)


@every_width
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_exact_where_the_numbers_are_dyadic(bits: int, dtype: torch.dtype) -> None:
    kernel = PACTActivationKernel(bits)
    x, alpha = numbers(bits, dtype)
    expected = tabulate(point, x.tolist(), alpha.item(), bits)
    assert torch.equal(kernel.codes(x, alpha).double(), expected['code'])
    assert torch.equal(kernel.forward(x, alpha).double(), expected['value'])
    grad = torch.randn_like(x)
    grad_x, grad_alpha = gradients(kernel, grad, x, alpha)
    assert torch.equal(grad_x, grad * expected['d_x'].to(dtype))
    torch.testing.assert_close(grad_alpha, (grad * expected['d_v'].to(dtype)).sum())


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_ties_go_to_the_even_code(bits: int) -> None:
    n = 2**bits - 1
    x, alpha = torch.arange(2 * n + 2).double() / 32, torch.tensor(n / 16).double()
    expected = tabulate(point, x.tolist(), alpha.item(), bits)
    assert torch.equal(PACTActivationKernel(bits).codes(x, alpha), expected['code'])


@every_width
@pytest.mark.parametrize('alpha', [0.25, 1.7, 10.0])
def test_edges_of_the_range(bits: int, alpha: float) -> None:
    edges = torch.tensor([0.0, alpha], dtype=torch.float64)
    up, down = torch.tensor(math.inf).double(), torch.tensor(-math.inf).double()
    kernel, length = PACTActivationKernel(bits), torch.tensor(alpha, dtype=torch.float64)
    for one in torch.cat([edges, edges.nextafter(up), edges.nextafter(down)]).split(1):
        expected = point(one.item(), alpha, bits)
        grad_x, grad_alpha = gradients(kernel, torch.ones_like(one), one, length)
        assert kernel.codes(one, length).item() == expected.code
        assert (grad_x.item(), grad_alpha.item()) == (expected.d_x, expected.d_v)


@every_width
def test_equals_the_paper_written_with_absolute_values(bits: int) -> None:
    """y = (|x| - |x - alpha| + alpha)/2, and the gradient of y passes the rounding."""
    x, upstream = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    x.requires_grad_()
    alpha = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    n = 2**bits - 1
    y = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
    rounded = torch.round(y * n / alpha) * alpha / n
    expected = y + (rounded - y).detach()
    found = fake_quantize(x, PACTActivationKernel(bits), alpha)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, alpha), upstream),
        torch.autograd.grad(expected, (x, alpha), upstream),
        rtol=1e-12,
        atol=1e-12)


@pytest.mark.parametrize('bad', [0.0, -3.0], ids=str)
def test_alpha_is_floored_and_can_grow_again(bad: float) -> None:
    kernel, x = PACTActivationKernel(4), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    smallest, bad = torch.tensor([1e-6, bad], dtype=torch.float64)
    assert torch.equal(kernel.forward(x, bad), kernel.forward(x, smallest))
    assert kernel.scale(bad) > 0
    grad_x, grad_alpha = gradients(kernel, -torch.ones_like(x), x, bad)
    assert grad_alpha == -3
    assert not grad_x.any()
