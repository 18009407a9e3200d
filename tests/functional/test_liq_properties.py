"""What holds for every input of the LIQ kernels (Hypothesis looks for a counterexample)."""
from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel

NUMBERS = st.lists(st.floats(-64, 64, width=32), min_size=1, max_size=30)
INTERVALS = st.floats(2**-7, 32, width=32)
ACTIVATIONS = st.builds(LIQActivationKernel, st.integers(2, 8))
WEIGHTS = st.builds(LIQWeightKernel, st.integers(1, 8))
KERNELS = ACTIVATIONS | WEIGHTS
deterministic = settings(derandomize=True, deadline=None, max_examples=60, database=None)


def promised_codes(kernel: LIQActivationKernel | LIQWeightKernel) -> list[int]:
    """All codes of the documented grid, in order."""
    n = 2**kernel.bit_width - 1
    if isinstance(kernel, LIQActivationKernel):
        return list(range(n + 1))
    return list(range(-127, 128)) if kernel.bit_width == 8 else list(range(-n, n + 1, 2))


@deterministic
@given(kernel=KERNELS, numbers=NUMBERS, v=INTERVALS)
def test_codes_are_promised_ones_and_fake_is_codes_times_scale(kernel, numbers, v) -> None:
    x, v = torch.tensor(numbers), torch.tensor(v)
    codes = kernel.codes(x, v)
    assert set(codes.tolist()) <= set(promised_codes(kernel))
    assert torch.equal(kernel.forward(x, v), codes * kernel.scale(v))


@deterministic
@given(kernel=KERNELS, v=INTERVALS)
def test_every_promised_level_is_reached_and_no_other(kernel, v) -> None:
    v = torch.tensor(v)
    sweep = torch.linspace(-1.1, 1.1, 2400) * v
    assert kernel.codes(sweep, v).unique().tolist() == promised_codes(kernel)


@deterministic
@given(kernel=KERNELS, numbers=NUMBERS, v=INTERVALS)
def test_quantizing_twice_is_quantizing_once(kernel, numbers, v) -> None:
    v = torch.tensor(v)
    once = kernel.forward(torch.tensor(numbers), v)
    assert torch.equal(kernel.forward(once, v), once)


@deterministic
@given(kernel=KERNELS, numbers=NUMBERS, v=INTERVALS)
def test_order_is_kept(kernel, numbers, v) -> None:
    x = torch.tensor(numbers).sort().values
    assert (kernel.forward(x, torch.tensor(v)).diff() >= 0).all()


@deterministic
@given(kernel=KERNELS, numbers=NUMBERS, v=INTERVALS)
def test_error_inside_the_interval_is_at_most_half_a_step(kernel, numbers, v) -> None:
    x, v = torch.tensor(numbers, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)
    quantized = kernel.forward(x, v)
    inside = kernel.backward(torch.ones_like(x), x, quantized, v)[0].bool()
    error = (quantized - x).abs()[inside]
    assert (error <= 0.5 * step(kernel, v) * (1 + 1e-9)).all()


@deterministic
@given(kernel=WEIGHTS, numbers=NUMBERS, v=INTERVALS)
def test_weights_are_symmetric_except_at_ties(kernel, numbers, v) -> None:
    w, v = torch.tensor(numbers, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)
    distance = (w.clamp(-v, v) / step(kernel, v) + step_phase(kernel)).frac().abs()
    clear = (distance - 0.5).abs() > 1e-6
    assert torch.equal(kernel.forward(-w, v)[clear], -kernel.forward(w, v)[clear])


def step(kernel: LIQActivationKernel | LIQWeightKernel, v: Tensor) -> Tensor:
    """Distance of neighbouring grid points: two codes for weights of odd codes."""
    first, second = promised_codes(kernel)[:2]
    return (second - first) * v / promised_codes(kernel)[-1]


def step_phase(kernel: LIQWeightKernel) -> float:
    """Where the grid points lie, in steps: halves if zero is none."""
    return 0.0 if 0 in promised_codes(kernel) else 0.5
