"""What holds for the kernels of every family (Hypothesis looks for a counterexample)."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaqd.functional import DoReFaWeightKernel
from tests.functional.families import Case, activations, weights

CASES = {
    f'{role}-{name}{bits}': case
    for bits in range(2, 9)
    for role, cases in (('activation', activations(bits)), ('weight', weights(bits)))
    for name, case in cases.items()
}
UNIVERSAL = {name: case for name, case in CASES.items() if 'channel' not in name}
every = pytest.mark.parametrize('case', UNIVERSAL.values(), ids=UNIVERSAL.keys())
deterministic = settings(derandomize=True, deadline=None, max_examples=60, database=None)
KERNELS = st.sampled_from([case for name, case in UNIVERSAL.items() if 'weight-liq' not in name])
LEARNED = st.sampled_from([
    case for name, case in UNIVERSAL.items()
    if 'weight-liq' not in name and not isinstance(case.kernel, DoReFaWeightKernel)
])
NUMBERS = st.lists(st.floats(-64, 64, width=32), min_size=1, max_size=30)


def offset_of(case: Case) -> float:
    return case.values[1] if len(case.values) > 1 else 0.0


@deterministic
@given(case=KERNELS, numbers=NUMBERS)
def test_fake_is_codes_times_scale_and_codes_are_integers_of_the_range(case, numbers) -> None:
    x, parameters = torch.tensor(numbers), case.parameters()
    codes = case.kernel.codes(x, *parameters)
    assert torch.equal(codes, codes.round()) and codes.max() <= case.kernel.qmax
    expected = codes * case.kernel.scale(*parameters) + offset_of(case)
    assert torch.equal(case.kernel.forward(x, *parameters), expected)


@deterministic
@given(case=LEARNED, numbers=NUMBERS)
def test_quantizing_twice_is_quantizing_once(case, numbers) -> None:
    parameters = case.parameters()
    once = case.kernel.forward(torch.tensor(numbers), *parameters)
    assert torch.equal(case.kernel.forward(once, *parameters), once)


@deterministic
@given(case=KERNELS, numbers=NUMBERS)
def test_order_is_kept(case, numbers) -> None:
    x = torch.tensor(numbers).sort().values
    assert (case.kernel.forward(x, *case.parameters()).diff() >= 0).all()


@deterministic
@given(case=LEARNED, numbers=NUMBERS)
def test_error_inside_is_at_most_half_a_step(case, numbers) -> None:
    x, parameters = torch.tensor(numbers).double(), case.parameters(dtype=torch.float64)
    quantized = case.kernel.forward(x, *parameters)
    inside = case.kernel.backward(torch.ones_like(x), x, quantized, *parameters)[0].bool()
    step = case.kernel.scale(*parameters)
    assert ((quantized - x).abs()[inside] <= 0.5 * step * (1 + 1e-9)).all()


@every
def test_only_the_gradient_is_overwritten(case) -> None:
    x, grad, parameters = torch.randn(9), torch.randn(9), case.parameters()
    given_ = (x, case.kernel.forward(x, *parameters), *parameters)
    kept = [part.clone() for part in given_]
    case.kernel.codes(x, *parameters)
    case.kernel.backward(grad, *given_)
    assert all(torch.equal(*pair) for pair in zip(given_, kept))


@every
def test_zeros_and_huge_numbers_are_finite(case) -> None:
    for x in (torch.zeros(4, 3), torch.tensor([[1e38, -1e38, 3e38]])):
        if getattr(case.kernel, 'normalize', False) and x.any():
            continue  # their variance overflows
        quantized = case.kernel.forward(x, *case.parameters())
        found = case.kernel.backward(torch.ones_like(x), x, quantized, *case.parameters())
        assert all(part.isfinite().all() for part in (quantized, *found))


@pytest.mark.parametrize('case', activations(4).values(), ids=activations(4).keys())
def test_empty_batch(case) -> None:
    x = torch.empty(0, 3)
    quantized = case.kernel.forward(x, *case.parameters())
    grad_x, *rest = case.kernel.backward(torch.empty(0, 3), x, quantized, *case.parameters())
    assert quantized.shape == grad_x.shape == (0, 3)
    assert not any(grad.any() for grad in rest)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_kernels_are_values(case) -> None:
    twin = replace(case.kernel)
    assert twin == case.kernel and hash(twin) == hash(case.kernel)
    with pytest.raises(AttributeError):
        case.kernel.bit_width = 3
