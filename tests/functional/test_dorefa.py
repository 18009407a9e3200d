"""DoReFa kernels against the formulas: forward and gradient, at every bit width."""
from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from mmaqd.functional import DoReFaActivationKernel, DoReFaWeightKernel, fake_quantize
from tests.functional.reference import straight_through_round

every_width = pytest.mark.parametrize('bits', range(2, 9))
clips = pytest.mark.parametrize('clip', [1.0, 0.25, 3.0])


def quantized_weights(w: Tensor, bits: int) -> Tensor:
    """2 quantize_k(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1 of the paper, with narrow 8-bit codes."""
    bounded = torch.tanh(w)
    bounded = bounded / bounded.abs().max()
    if bits == 8:
        return straight_through_round(127 * bounded) / 127
    n = 2**bits - 1
    return 2 * straight_through_round(n * (bounded / 2 + 0.5)) / n - 1


class TestActivations:

    @every_width
    @clips
    def test_exact_where_the_numbers_are_dyadic(self, bits: int, clip: float) -> None:
        n = 2**bits - 1
        kernel = DoReFaActivationKernel(bits, clip)
        x = clip * torch.arange(-16, 81, dtype=torch.float64) / 64
        codes = [
            round(n * min(max(Fraction(i, 64), Fraction(0)), Fraction(1))) for i in range(-16, 81)
        ]
        assert kernel.codes(x).tolist() == codes
        assert torch.equal(kernel.forward(x), torch.tensor(codes).double() * (clip / n))
        assert kernel.scale() == clip / n

    @every_width
    @clips
    def test_gradient_passes_inside_only(self, bits: int, clip: float) -> None:
        up, down = torch.tensor(math.inf).double(), torch.tensor(-math.inf).double()
        edges = torch.tensor([0.0, clip], dtype=torch.float64)
        x = torch.cat([edges, edges.nextafter(up), edges.nextafter(down), clip * torch.randn(50)])
        kernel, grad = DoReFaActivationKernel(bits, clip), torch.randn_like(x)
        found, = kernel.backward(grad.clone(), x, kernel.forward(x))
        assert found.tolist() == [
            g if 0 <= number <= clip else 0 for g, number in zip(grad.tolist(), x.tolist())
        ]


class TestWeights:

    @every_width
    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
    def test_codes_and_grid_points(self, bits: int, dtype: torch.dtype) -> None:
        w = (0.1 * torch.randn(6, 3, 3, 3)).to(dtype)
        kernel = DoReFaWeightKernel(bits)
        n = 127 if bits == 8 else 2**bits - 1
        bounded = torch.tanh(w) / torch.tanh(w).abs().max()
        codes = (n * bounded).round() if bits == 8 else 2 * (n * (bounded + 1) / 2).round() - n
        assert torch.equal(kernel.codes(w), codes)
        assert torch.equal(kernel.forward(w), codes * (1 / n))
        assert torch.equal(kernel.normalized(w), bounded)
        assert kernel.forward(w).abs().max() == 1

    @every_width
    @pytest.mark.parametrize('shape', [(1, ), (7, ), (4, 3, 2, 2)], ids=str)
    def test_equals_the_composition(self, bits: int, shape: tuple) -> None:
        w, upstream = torch.randn(2, *shape, dtype=torch.float64)
        w.requires_grad_()
        found = fake_quantize(w, DoReFaWeightKernel(bits))
        expected = quantized_weights(w, bits)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(found, w, upstream),
            torch.autograd.grad(expected, w, upstream),
            rtol=1e-11,
            atol=1e-11)

    def test_gradient_is_the_derivative_of_what_is_rounded(self) -> None:
        """By finite differences, the largest weight included."""
        w = torch.tensor([0.3, -0.9, 0.1, 0.5], dtype=torch.float64)
        kernel = DoReFaWeightKernel(4)
        for i, row in enumerate(torch.eye(4).double()):
            found, = kernel.backward(row, w, kernel.forward(w))
            for j, change in enumerate(1e-6 * torch.eye(4).double()):
                slope = (kernel.normalized(w + change) - kernel.normalized(w - change))[i] / 2e-6
                torch.testing.assert_close(found[j], slope, rtol=1e-7, atol=1e-9)

    def test_largest_weights_that_are_equal_share_its_gradient(self) -> None:
        w = torch.tensor([0.5, -0.5, 0.2], dtype=torch.float64, requires_grad=True)
        upstream = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
        found, = torch.autograd.grad(fake_quantize(w, DoReFaWeightKernel(3)), w, upstream)
        expected, = torch.autograd.grad(quantized_weights(w, 3), w, upstream)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)

    @every_width
    def test_levels_do_not_depend_on_small_scales(self, bits: int) -> None:
        """tanh is the identity there."""
        w = 1e-3 * torch.randn(200, dtype=torch.float64)
        kernel = DoReFaWeightKernel(bits)
        assert (kernel.codes(w) == kernel.codes(0.1 * w)).double().mean() > 0.99

    @pytest.mark.parametrize('scale', [0.0, 1e-12, 1e3])
    def test_extreme_weights_are_finite(self, scale: float) -> None:
        w, kernel = scale * torch.randn(20), DoReFaWeightKernel(4)
        found, = kernel.backward(torch.ones(20), w, kernel.forward(w))
        assert found.isfinite().all() and kernel.forward(w).isfinite().all()
