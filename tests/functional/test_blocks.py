"""Going over tensors in blocks: every element once, in place, and no other numbers."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaqd.functional import blocks as blocks_module
from mmaqd.functional.blocks import blocks
from tests.functional.families import activations, weights

BLOCK, ELSEWHERE = 10, 15
CHANNELS_LAST = dict(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(blocks_module, 'CPU_BLOCK', BLOCK)
    monkeypatch.setattr(blocks_module, 'BLOCK', ELSEWHERE)


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(**CHANNELS_LAST)


def transposed(*shape: int) -> Tensor:
    return torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))


@pytest.mark.parametrize(
    'make', [torch.randn, channels_last, transposed], ids=lambda make: make.__name__)
def test_blocks_are_views_that_cover_the_tensor_once(make) -> None:
    x = make(2, 3, 4, 5)
    expected = x + 1
    for part, in blocks(x):
        part.add_(1)
    assert torch.equal(x, expected)


@pytest.mark.parametrize(('shape', 'sizes'), [((4, 6), [10, 10, 4]), ((5, 2), [10]), ((0, 3), [0])])
def test_sizes(shape: tuple, sizes: list[int]) -> None:
    assert [part.numel() for part, in blocks(torch.zeros(shape))] == sizes


@pytest.mark.parametrize('first', [torch.randn, channels_last], ids=lambda make: make.__name__)
@pytest.mark.parametrize('second', [torch.randn, channels_last], ids=lambda make: make.__name__)
def test_parts_match_whatever_the_layouts(first, second) -> None:
    x, y = first(2, 3, 4, 5), second(2, 3, 4, 5)
    expected = x + y
    for x_part, y_part in blocks(x, y):
        x_part.add_(y_part)
    assert torch.equal(x, expected)


def test_blocks_of_other_devices_have_a_size_of_their_own() -> None:
    x = torch.zeros(4, 6, device='meta')
    assert [part.numel() for part, in blocks(x)] == [15, 9]
    small = x[:2]
    assert [part is small for part, in blocks(small)] == [True]


FAMILIES = {
    f'{side}-{name}': case
    for side, cases in (('activation', activations(3)), ('weight', weights(3)))
    for name, case in cases.items() if case.kernel.axis is None
}


@pytest.mark.parametrize('case', FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize('make', [torch.randn, channels_last], ids=lambda make: make.__name__)
def test_kernels_compute_in_blocks_what_they_compute_at_once(case, make, monkeypatch) -> None:
    x, grad, parameters = make(2, 3, 4, 5), make(2, 3, 4, 5), case.parameters()
    results = []
    for block in (BLOCK, x.numel()):
        monkeypatch.setattr(blocks_module, 'CPU_BLOCK', block)
        quantized = case.kernel.forward(x, *parameters)
        grad_x, *rest = case.kernel.backward(grad.clone(), x, quantized, *parameters)
        results.append(((case.kernel.codes(x, *parameters), quantized, grad_x), rest))
    (exact, sums), (expected, expected_sums) = results
    assert all(torch.equal(*pair) for pair in zip(exact, expected))
    for pair in zip(sums, expected_sums):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)
