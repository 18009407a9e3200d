"""LSQ and LSQ+ kernels against the formulas: forward and every gradient, at every bit width."""
from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from mmaqd.functional import (LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel,
                              fake_quantize)
from tests.functional.reference import Point, straight_through_round, tabulate

BITS = range(2, 9)
KERNELS = [kernel(bits) for kernel in (LSQActivationKernel, LSQWeightKernel) for bits in BITS]
lsq_kernels = pytest.mark.parametrize(
    'kernel', KERNELS, ids=lambda k: f'{type(k).__name__[3:-6]}{k.bit_width}')
every_width = pytest.mark.parametrize('bits', BITS)


def code_range(kernel: object) -> tuple[int, int]:
    """The integers that the paper gives to signed weights and to unsigned activations."""
    bits = kernel.bit_width
    if isinstance(kernel, LSQWeightKernel):
        return -2**(bits - 1), 2**(bits - 1) - 1
    return 0, 2**bits - 1


def reference(kernel: object):
    """The formulas at one number, in exact fractions; ``d_v`` is dQ/ds without the factor."""
    low, high = code_range(kernel)

    def point(x: float, s: float, bits: int) -> Point:
        ratio = Fraction(x) / Fraction(s)
        if not low <= ratio <= high:
            code = high if ratio > high else low
            return Point(code, code * Fraction(s), 0, Fraction(code))
        code = round(ratio)  # half to even
        return Point(code, code * Fraction(s), 1, code - ratio)

    return point


def sixteenths(kernel: object, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A step size of 1/16, and odd eighths of it from below the range to above it."""
    low, high = code_range(kernel)
    x = torch.arange(8 * low - 19, 8 * high + 20, 2, dtype=dtype) / 128
    return x, torch.tensor(1 / 16, dtype=dtype)


def expected(kernel: object, x: Tensor, s: Tensor) -> dict[str, Tensor]:
    return tabulate(reference(kernel), x.tolist(), s.item(), kernel.bit_width)


def gradients(kernel: object, grad: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """Straight from the kernel."""
    return kernel.backward(grad.clone(), x, kernel.forward(x, *parameters), *parameters)


def outputs(function, upstream: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Output and gradients of the inputs by autograd."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, upstream))


@lsq_kernels
def test_range_of_the_codes(kernel) -> None:
    assert (kernel.qmin, kernel.qmax) == code_range(kernel)


@lsq_kernels
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_exact_where_the_numbers_are_dyadic(kernel, dtype: torch.dtype) -> None:
    x, s = sixteenths(kernel, dtype)
    wanted = expected(kernel, x, s)
    assert torch.equal(kernel.codes(x, s).double(), wanted['code'])
    assert torch.equal(kernel.forward(x, s).double(), wanted['value'])
    assert torch.equal(gradients(kernel, torch.ones_like(x), x, s)[0].double(), wanted['d_x'])
    assert kernel.scale(s) == 1 / 16


@lsq_kernels
def test_ties_go_to_the_even_code(kernel) -> None:
    low, high = code_range(kernel)
    x, s = torch.arange(2 * low - 2, 2 * high + 3).double() / 32, torch.tensor(1 / 16).double()
    assert torch.equal(kernel.codes(x, s), expected(kernel, x, s)['code'])


@lsq_kernels
def test_step_size_gradient_is_the_sum_over_the_numbers_times_the_factor(kernel) -> None:
    x, s = sixteenths(kernel)
    wanted = expected(kernel, x, s)['d_v']
    factor = 1 / math.sqrt(x.numel() * code_range(kernel)[1])
    for _ in range(3):
        grad = torch.randn_like(x)
        found = gradients(kernel, grad, x, s)[1]
        torch.testing.assert_close(found, factor * (grad * wanted).sum(), rtol=1e-12, atol=1e-12)


@lsq_kernels
@pytest.mark.parametrize('s', [2**-7, 0.25, 1.0])
def test_edges_of_the_range(kernel, s: float) -> None:
    edges = s * torch.tensor(code_range(kernel), dtype=torch.float64)
    up, down = torch.tensor(math.inf).double(), torch.tensor(-math.inf).double()
    x = torch.cat([edges, edges.nextafter(up), edges.nextafter(down), torch.zeros(1)])
    step_size = torch.tensor(s, dtype=torch.float64)
    wanted = expected(kernel, x, step_size)
    for i, one in enumerate(x.split(1)):
        d_x, d_s = gradients(kernel, torch.ones_like(one), one, step_size)
        assert kernel.codes(one, step_size).item() == wanted['code'][i]
        assert d_x.item() == wanted['d_x'][i]
        unscaled = d_s.item() * math.sqrt(code_range(kernel)[1])
        assert unscaled == pytest.approx(wanted['d_v'][i].item(), abs=1e-12)


@lsq_kernels
@pytest.mark.parametrize('shape', [(), (7, ), (2, 3, 5, 4)], ids=str)
def test_equals_the_composition(kernel, shape: tuple) -> None:
    low, high = code_range(kernel)
    x, upstream = torch.randn(2, *shape, dtype=torch.float64)
    s = torch.tensor(1.5 / high, dtype=torch.float64)
    batch = shape[0] if len(shape) > 1 and low == 0 else 1

    def composed(x: Tensor, s: Tensor) -> Tensor:
        s.register_hook(lambda grad: grad / math.sqrt(x.numel() / batch * high))
        return straight_through_round(torch.clamp(x / s, low, high)) * s

    found = outputs(lambda x, s: fake_quantize(x, kernel, s), upstream, x, s)
    torch.testing.assert_close(found, outputs(composed, upstream, x, s), rtol=1e-12, atol=1e-12)


@every_width
def test_per_channel_is_per_tensor_for_each_channel(bits: int) -> None:
    w, upstream = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    s = torch.tensor([0.1, 0.3, 0.8, 2.0], dtype=torch.float64)
    per_channel, per_tensor = LSQWeightKernel(bits, axis=0), LSQWeightKernel(bits)
    found_w, found_s = gradients(per_channel, upstream, w, s)
    assert torch.equal(per_channel.scale(s), s)
    for i in range(4):
        assert torch.equal(per_channel.forward(w, s)[i], per_tensor.forward(w[i], s[i]))
        grad_w, grad_s = gradients(per_tensor, upstream[i], w[i], s[i])
        assert torch.equal(found_w[i], grad_w)
        torch.testing.assert_close(found_s[i], grad_s, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    'kernel', [LSQActivationKernel(3), LSQPlusActivationKernel(3)], ids=['lsq', 'lsq_plus'])
def test_factor_of_activations_counts_the_features_of_one_sample(kernel) -> None:
    """So a batch is worth the sum of its samples, whatever its size."""
    x, grad = 2 * torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    parameters = [torch.tensor(0.3).double(), torch.tensor(-0.2).double()]
    if isinstance(kernel, LSQActivationKernel):
        del parameters[1]
    together = gradients(kernel, grad, x, *parameters)[1:]
    alone = [
        gradients(kernel, g, one, *parameters)[1:] for g, one in zip(grad.split(1), x.split(1))
    ]
    for whole, parts in zip(together, zip(*alone)):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-10, atol=1e-12)


@lsq_kernels
@pytest.mark.parametrize('bad', [0.0, -3.0], ids=str)
def test_step_size_is_floored_and_can_grow_again(kernel, bad: float) -> None:
    x = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    smallest, bad = torch.tensor([1e-6, bad], dtype=torch.float64)
    assert torch.equal(kernel.forward(x, bad), kernel.forward(x, smallest))
    assert kernel.scale(bad) > 0
    # A loss that falls when the output grows pushes the step size up.
    grad_x, grad_s = gradients(kernel, -torch.ones_like(x), x, bad)
    assert grad_s.item() < 0
    assert not grad_x.any()


class TestLSQPlus:
    """LSQ of x - beta, moved back by beta."""

    S, BETA = torch.tensor(1 / 16).double(), torch.tensor(-5 / 16).double()

    @every_width
    def test_it_is_lsq_of_the_shifted_tensor(self, bits: int) -> None:
        kernel, lsq = LSQPlusActivationKernel(bits), LSQActivationKernel(bits)
        x, _ = sixteenths(kernel)
        wanted = tabulate(reference(lsq), x.tolist(), self.S.item(), bits)
        shifted = x + self.BETA  # exact, all are dyadic
        assert torch.equal(kernel.codes(shifted, self.S, self.BETA), wanted['code'])
        assert torch.equal(kernel.forward(shifted, self.S, self.BETA), wanted['value'] + self.BETA)
        grad = torch.randn_like(x)
        grad_x, grad_s, _ = gradients(kernel, grad, shifted, self.S, self.BETA)
        assert torch.equal(grad_x, grad * wanted['d_x'])
        factor = 1 / math.sqrt(x.numel() * (2**bits - 1))
        torch.testing.assert_close(grad_s, factor * (grad * wanted['d_v']).sum())

    @every_width
    def test_offset_moves_what_is_clipped(self, bits: int) -> None:
        kernel = LSQPlusActivationKernel(bits)
        x, _ = sixteenths(kernel)
        high = 2**bits - 1
        outside = [not 0 <= (v - self.BETA) / self.S <= high for v in x]
        assert 0 < sum(outside) < len(outside)
        grad = torch.randn_like(x)
        grad_offset = gradients(kernel, grad, x, self.S, self.BETA)[2]
        torch.testing.assert_close(grad_offset, grad[outside].sum() / math.sqrt(len(x) * high))

    @every_width
    def test_equals_the_composition(self, bits: int) -> None:
        x, upstream = torch.randn(2, 3, 5, 4, dtype=torch.float64)
        s, beta = torch.tensor([1.5 / (2**bits - 1), -0.4], dtype=torch.float64)
        factor = 1 / math.sqrt(20 * (2**bits - 1))

        def composed(x: Tensor, s: Tensor, beta: Tensor) -> Tensor:
            for parameter in (s, beta):
                parameter.register_hook(lambda grad: factor * grad)
            clipped = torch.clamp((x - beta) / s, 0, 2**bits - 1)
            return straight_through_round(clipped) * s + beta

        kernel = LSQPlusActivationKernel(bits)
        found = outputs(lambda x, *rest: fake_quantize(x, kernel, *rest), upstream, x, s, beta)
        torch.testing.assert_close(
            found, outputs(composed, upstream, x, s, beta), rtol=1e-11, atol=1e-11)

    def test_without_an_offset_it_is_lsq(self) -> None:
        x, grad = torch.randn(2, 3, 50, dtype=torch.float64)
        s = torch.tensor(0.2).double()
        plus = gradients(LSQPlusActivationKernel(3), grad, x, s, torch.zeros(()).double())
        torch.testing.assert_close(plus[:2], gradients(LSQActivationKernel(3), grad, x, s))

    @pytest.mark.parametrize('which', [0, 1], ids=['step_size', 'offset'])
    def test_gradients_of_what_is_clipped_are_derivatives(self, which: int) -> None:
        """Nothing is rounded there, so finite differences know them too."""
        x = torch.tensor([-4.0, 5.0], dtype=torch.float64)
        kernel, parameters = LSQPlusActivationKernel(2), torch.tensor([0.7, -0.3]).double()
        change = torch.zeros(2).double()
        change[which] = 1e-6
        ahead, behind = (kernel.forward(x, *(parameters + sign * change)) for sign in (1, -1))
        for row, slope in zip(torch.eye(2).double(), (ahead - behind) / 2e-6):
            found = gradients(kernel, row, x, *parameters)[1 + which]
            torch.testing.assert_close(found * math.sqrt(2 * 3), slope)
