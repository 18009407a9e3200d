"""The readable compositions against the kernels, and that of LIQ against the tests' reference."""
from __future__ import annotations

import pytest
import torch
from composed import (composed_dorefa_activation, composed_dorefa_weight, composed_liq_activation,
                      composed_liq_weight, composed_lsq_activation, composed_lsq_plus_activation,
                      composed_lsq_weight, composed_pact_activation)
from torch import Tensor

from mmaqd.functional import (DoReFaActivationKernel, DoReFaWeightKernel, LIQActivationKernel,
                              LIQWeightKernel, LSQActivationKernel, LSQPlusActivationKernel,
                              LSQWeightKernel, PACTActivationKernel, fake_quantize)
from tests.functional.reference import composed_activation, composed_weight, every_normalization

every_width = pytest.mark.parametrize('bits', range(2, 9))


def leaf(*values: float) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def output_and_gradients(out: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return (out.detach(), *torch.autograd.grad(out, leaves, upstream))


def assert_same(found: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    """The same output and the same gradients."""
    torch.testing.assert_close(
        output_and_gradients(found, *leaves),
        output_and_gradients(expected, *leaves),
        rtol=1e-11,
        atol=1e-11)


@every_width
def test_liq_activation(bits: int) -> None:
    x = torch.randn(60, dtype=torch.float64, requires_grad=True)
    v = leaf(0.8).requires_grad_()
    found = composed_liq_activation(x, v, bits)
    assert_same(found, composed_activation(x, v, bits), x, v)
    found = composed_liq_activation(x, v, bits)
    assert_same(found, fake_quantize(x, LIQActivationKernel(bits), v), x, v)


@pytest.mark.parametrize('bits', range(1, 9))
@pytest.mark.parametrize('axis', [None, 0], ids=['per_tensor', 'per_channel'])
@every_normalization
def test_liq_weight(bits: int, axis: int | None, normalize: bool, center: bool) -> None:
    w = (0.2 + torch.randn(4, 5, 3, dtype=torch.float64)).requires_grad_()
    v = torch.full(() if axis is None else (4, ), 1.3, dtype=torch.float64, requires_grad=True)
    kernel = LIQWeightKernel(bits, normalize, axis, center=center)
    found = composed_liq_weight(w, v, bits, normalize, axis, center)
    assert_same(found, composed_weight(w, v, bits, normalize, center), w, v)
    found = composed_liq_weight(w, v, bits, normalize, axis, center)
    assert_same(found, fake_quantize(w, kernel, v), w, v)


@every_width
def test_activations_of_the_other_families(bits: int) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    n = 2**bits - 1
    s, beta, alpha = (leaf(value).requires_grad_() for value in (1.4 / n, -0.3, 1.1))
    assert_same(
        composed_lsq_activation(x, s, bits), fake_quantize(x, LSQActivationKernel(bits), s), x, s)
    assert_same(
        composed_lsq_plus_activation(x, s, beta, bits),
        fake_quantize(x, LSQPlusActivationKernel(bits), s, beta), x, s, beta)
    assert_same(
        composed_pact_activation(x, alpha, bits), fake_quantize(x, PACTActivationKernel(bits),
                                                                alpha), x, alpha)
    for clip in (1.0, 1.7):
        assert_same(
            composed_dorefa_activation(x, bits, clip),
            fake_quantize(x, DoReFaActivationKernel(bits, clip)), x)


@every_width
def test_weights_of_the_other_families(bits: int) -> None:
    w = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    steps = leaf(0.1, 0.3, 0.5, 2.0).requires_grad_()
    s = leaf(0.4).requires_grad_()
    assert_same(composed_lsq_weight(w, s, bits), fake_quantize(w, LSQWeightKernel(bits), s), w, s)
    assert_same(
        composed_lsq_weight(w, steps, bits, axis=0),
        fake_quantize(w, LSQWeightKernel(bits, axis=0), steps), w, steps)
    assert_same(composed_dorefa_weight(w, bits), fake_quantize(w, DoReFaWeightKernel(bits)), w)
