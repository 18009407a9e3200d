"""The readable composition of LIQ against the reference of the tests, and against the kernels."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaqd.functional import (LIQActivationKernel, LIQWeightKernel, composed_liq_activation,
                              composed_liq_weight, fake_quantize)
from tests.functional.reference import composed_activation, composed_weight


def output_and_gradients(out: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return (out.detach(), *torch.autograd.grad(out, leaves, upstream))


@pytest.mark.parametrize('bits', range(2, 9))
def test_activation(bits: int) -> None:
    x = torch.randn(60, dtype=torch.float64, requires_grad=True)
    v = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    found = output_and_gradients(composed_liq_activation(x, v, bits), x, v)
    for other in (composed_activation(x, v, bits), fake_quantize(x, LIQActivationKernel(bits), v)):
        expected = output_and_gradients(other, x, v)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('bits', range(1, 9))
@pytest.mark.parametrize('axis', [None, 0], ids=['per_tensor', 'per_channel'])
@pytest.mark.parametrize('normalize', [False, True], ids=['plain', 'normalized'])
def test_weight(bits: int, axis: int | None, normalize: bool) -> None:
    w = (0.2 + torch.randn(4, 5, 3, dtype=torch.float64)).requires_grad_()
    v = torch.full(() if axis is None else (4, ), 1.3, dtype=torch.float64, requires_grad=True)
    found = output_and_gradients(composed_liq_weight(w, v, bits, normalize, axis), w, v)
    kernel = LIQWeightKernel(bits, normalize, axis)
    for other in (composed_weight(w, v, bits, normalize), fake_quantize(w, kernel, v)):
        expected = output_and_gradients(other, w, v)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
