"""The integer codes that a quantizer gives, as one value object."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class IntegerGrid:
    """The integers ``qmin, qmin + step, ..., qmax``.

    The real value of a code is ``scale * code + offset`` with a kernel's scale and offset. Codes
    with their distances from ``qmin`` counted in steps are indices 0, 1, ..., which fit
    :attr:`bit_width` bits and are what packed files hold.

    Args:
        qmin: Smallest code.
        qmax: Largest code.
        step: Distance of two codes: 2 on the odd grid of LIQ's weights, which has no zero.

    Raises:
        ValueError: ``qmax - qmin`` is no positive multiple of ``step``.

    Example:
        >>> grid = IntegerGrid(-3, 3, step=2)
        >>> grid.values.tolist(), grid.bit_width, grid.has_zero
        ([-3, -1, 1, 3], 2, False)
        >>> grid.indices(torch.tensor([-3, 3])).tolist()
        [0, 3]
    """

    qmin: int
    qmax: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1 or self.qmax <= self.qmin or (self.qmax - self.qmin) % self.step:
            raise ValueError('IntegerGrid: qmax - qmin must be a positive multiple of step, but '
                             f'got {self.qmin}, {self.qmax}, {self.step}.')

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return (self.qmax - self.qmin) // self.step + 1

    @property
    def bit_width(self) -> int:
        """Bits that an index takes."""
        return (self.num_codes - 1).bit_length()

    @property
    def signed(self) -> bool:
        """Whether there are codes below zero."""
        return self.qmin < 0

    @property
    def magnitude(self) -> int:
        """Largest absolute value of a code."""
        return max(self.qmax, -self.qmin)

    @property
    def has_zero(self) -> bool:
        """Whether zero is a code."""
        return self.qmin <= 0 <= self.qmax and self.qmin % self.step == 0

    @property
    def dtype(self) -> torch.dtype:
        """The smallest integer dtype that holds the codes: uint8, int8 or int16."""
        for dtype in (torch.uint8, torch.int8):
            limits = torch.iinfo(dtype)
            if limits.min <= self.qmin and self.qmax <= limits.max:
                return dtype
        return torch.int16

    @property
    def values(self) -> Tensor:
        """All codes in order, (num_codes,) of :attr:`dtype`."""
        return torch.arange(self.qmin, self.qmax + 1, self.step).to(self.dtype)

    def indices(self, codes: Tensor) -> Tensor:
        """Index of each code, of any shape, as uint8."""
        return ((codes.to(torch.int16) - self.qmin) // self.step).to(torch.uint8)

    def codes(self, indices: Tensor) -> Tensor:
        """Code of each index, of any shape, as :attr:`dtype`."""
        return (indices.to(torch.int16) * self.step + self.qmin).to(self.dtype)


def unsigned_grid(bit_width: int) -> IntegerGrid:
    """0..2^b - 1.

    Example:
        >>> unsigned_grid(4)
        IntegerGrid(qmin=0, qmax=15, step=1)
    """
    return _UNSIGNED[bit_width]


def symmetric_weight_grid(bit_width: int) -> IntegerGrid:
    """The odd integers -n..n with n = 2^b - 1; at 8 bits the integers -127..127 (narrow range).

    The odd codes of 8 bits would reach 255 and not fit int8.

    Example:
        >>> symmetric_weight_grid(2).values.tolist()
        [-3, -1, 1, 3]
    """
    return _SYMMETRIC_WEIGHT[bit_width]


def narrow_grid(bit_width: int) -> IntegerGrid:
    """The symmetric -(2^(b-1) - 1)..2^(b-1) - 1.

    Example:
        >>> narrow_grid(4)
        IntegerGrid(qmin=-7, qmax=7, step=1)
    """
    return _NARROW[bit_width]


def twos_complement_grid(bit_width: int) -> IntegerGrid:
    """-2^(b-1)..2^(b-1) - 1.

    Example:
        >>> twos_complement_grid(4)
        IntegerGrid(qmin=-8, qmax=7, step=1)
    """
    return _TWOS_COMPLEMENT[bit_width]


# Made once: a kernel asks for its grid several times a call.
_UNSIGNED = {bits: IntegerGrid(0, 2**bits - 1) for bits in range(1, 9)}
_NARROW = {bits: IntegerGrid(1 - 2**(bits - 1), 2**(bits - 1) - 1) for bits in range(2, 9)}
_SYMMETRIC_WEIGHT = {bits: IntegerGrid(1 - 2**bits, 2**bits - 1, step=2) for bits in range(1, 8)}
_SYMMETRIC_WEIGHT[8] = _NARROW[8]  # narrow range
_TWOS_COMPLEMENT = {bits: IntegerGrid(-2**(bits - 1), 2**(bits - 1) - 1) for bits in range(1, 9)}
