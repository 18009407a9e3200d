"""Activations of either sign: formulas, gradients against autograd, and the zero of a padding."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaqd.functional import (ConvGeometry, LIQActivationKernel, LIQWeightKernel,
                              LSQActivationKernel, fake_quantize, quant_conv2d)

bits = pytest.mark.parametrize('bit_width', range(2, 9))


def rounded(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()


def liq_reference(x: Tensor, v: Tensor, bit_width: int) -> Tensor:
    n = 2**(bit_width - 1) - 1
    return v * rounded(n * (x / v).clamp(-1, 1)) / n


def lsq_reference(x: Tensor, s: Tensor, bit_width: int) -> Tensor:
    low, high = -2**(bit_width - 1), 2**(bit_width - 1) - 1
    factor = (x[0].numel() * high)**-0.5
    s = s.detach() + (s * factor - (s * factor).detach())
    return s * rounded((x / s).clamp(low, high))


CASES = {
    'liq': (LIQActivationKernel, 1.3, liq_reference),
    'lsq': (LSQActivationKernel, 0.11, lsq_reference),
}
cases = pytest.mark.parametrize('kernel_class, start, reference', CASES.values(), ids=CASES)


@bits
@cases
def test_outputs_and_gradients(kernel_class, start: float, reference, bit_width: int) -> None:
    kernel = kernel_class(bit_width, signed=True)
    results = []
    for quantized in (lambda x, p: fake_quantize(x, kernel, p),
                      lambda x, p: reference(x, p, bit_width)):
        torch.manual_seed(bit_width)
        x = torch.randn(3, 4, 5, 6, dtype=torch.float64).requires_grad_()
        parameter = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        out = quantized(x, parameter)
        (out * torch.randn_like(out)).sum().backward()
        results.append((out, x.grad, parameter.grad))
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@bits
@pytest.mark.parametrize('kernel_class, lowest', [(LIQActivationKernel, 1),
                                                  (LSQActivationKernel, 0)])
def test_codes_fill_the_grid(kernel_class, lowest: int, bit_width: int) -> None:
    kernel = kernel_class(bit_width, signed=True)
    codes = kernel.codes(torch.linspace(-9, 9, 4001), torch.tensor(1.0 if lowest else 1 / 64))
    assert torch.equal(codes.unique(), kernel.grid.values.float())
    assert kernel.grid.qmin == lowest - 2**(bit_width - 1) and kernel.grid.has_zero
    assert kernel.grid.dtype == torch.int8 and kernel.takes_negative
    assert kernel.codes(torch.zeros(2), torch.tensor(0.3)).tolist() == [0, 0]


def test_unsigned_stays_the_default() -> None:
    for kernel_class in (LIQActivationKernel, LSQActivationKernel):
        assert kernel_class(4) == kernel_class(4, signed=False)
        assert not kernel_class(4).takes_negative


@cases
def test_padding_of_a_conv_is_exact(kernel_class, start: float, reference) -> None:
    x, weight = torch.randn(2, 3, 5, 5).double(), torch.randn(4, 3, 3, 3).double()
    parameter = torch.tensor(start).double()
    found = quant_conv2d(
        x,
        weight,
        None,
        ConvGeometry(padding=(1, 1)),
        input_kernel=kernel_class(3, signed=True),
        input_parameters=(parameter, ),
        weight_kernel=LIQWeightKernel(3),
        weight_parameters=(torch.tensor(1.5).double(), ))
    padded = reference(F.pad(x, (1, 1, 1, 1)), parameter, 3)
    weight = LIQWeightKernel(3).forward(weight, torch.tensor(1.5).double())
    torch.testing.assert_close(found, F.conv2d(padded, weight), rtol=1e-10, atol=1e-12)
