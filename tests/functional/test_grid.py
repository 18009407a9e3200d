"""The integer codes of every kernel, against ranges written down here."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import (DoReFaActivationKernel, DoReFaWeightKernel, IntegerGrid,
                              LIQActivationKernel, LIQWeightKernel, LSQActivationKernel,
                              LSQPlusActivationKernel, LSQWeightKernel, PACTActivationKernel)

BITS = range(2, 9)
UNSIGNED = [
    DoReFaActivationKernel, LIQActivationKernel, LSQActivationKernel, LSQPlusActivationKernel,
    PACTActivationKernel
]


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('kernel', UNSIGNED, ids=lambda kernel: kernel.__name__)
def test_activations_have_all_unsigned_codes(kernel: type, bits: int) -> None:
    grid = kernel(bits).grid
    assert grid.values.tolist() == list(range(2**bits))
    assert grid.dtype == torch.uint8 and grid.has_zero and not grid.signed


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('kernel', [LIQWeightKernel, DoReFaWeightKernel])
def test_symmetric_weights_have_the_odd_codes_that_fit_int8(kernel: type, bits: int) -> None:
    grid = kernel(bits).grid
    n = 2**bits - 1
    assert grid.values.tolist() == (
        list(range(-127, 128)) if bits == 8 else list(range(-n, n + 1, 2)))
    assert grid.dtype == torch.int8 and grid.signed and grid.has_zero == (bits == 8)


@pytest.mark.parametrize('bits', BITS)
def test_weights_of_lsq_have_twos_complement(bits: int) -> None:
    half = 2**(bits - 1)
    assert LSQWeightKernel(bits).grid.values.tolist() == list(range(-half, half))


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('kernel',
                         [*UNSIGNED, LIQWeightKernel, DoReFaWeightKernel, LSQWeightKernel])
def test_indices_take_the_bits_of_the_kernel_and_come_back(kernel: type, bits: int) -> None:
    grid = kernel(bits).grid
    assert grid.bit_width == bits and grid.num_codes == len(grid.values)
    assert grid.magnitude == max(abs(code) for code in grid.values.tolist())
    indices = grid.indices(grid.values)
    assert indices.tolist() == list(range(grid.num_codes))
    torch.testing.assert_close(grid.codes(indices), grid.values, atol=0, rtol=0)


def test_only_an_offset_lets_unsigned_codes_take_negative_numbers() -> None:
    assert LSQPlusActivationKernel(4).takes_negative
    assert not LSQActivationKernel(4).takes_negative
    assert LSQWeightKernel(4).takes_negative


@pytest.mark.parametrize('arguments', [(3, 3), (4, 2), (0, 3, 2), (0, 4, 0)])
def test_an_impossible_grid_is_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match='positive multiple of step'):
        IntegerGrid(*arguments)
