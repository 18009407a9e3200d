"""Samples that a quantizer takes while calibrating, in bounded memory."""
from __future__ import annotations

from typing import Iterator

import torch
from torch import Tensor

_MAX_VALUES = 2**18
_MAX_PARTS = 64


class Samples:
    """Samples of many calls, each call with the same share.

    Up to 2^18 values are kept as they come. Beyond, a random half of them is kept, and of every
    later call the same share, so that no call counts more than another. The random numbers are its
    own: those of the training stay as they are, and the same calls give the same samples.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._parts: list[Tensor] = []
        self._halvings = self._draws = 0

    def add(self, rows: Tensor) -> None:
        """Take the samples (R, K) of one call, R rows for R learned values."""
        if self._halvings:
            rows = self._share(rows, 0.5**self._halvings)
        self._parts.append(rows)
        if len(self._parts) > 1 and sum(part.numel() for part in self._parts) > _MAX_VALUES:
            self._halvings += 1
            self._parts = [self._share(torch.cat(self._parts, dim=1), 0.5)]
        elif len(self._parts) > _MAX_PARTS:
            self._parts = [torch.cat(self._parts, dim=1)]

    def take(self) -> Tensor:
        """All samples (R, K), which are forgotten then."""
        samples = torch.cat(self._parts, dim=1)
        self.clear()
        return samples

    def _share(self, rows: Tensor, share: float) -> Tensor:
        # A generator is no part of the state: it could be neither copied nor pickled.
        generator = torch.Generator().manual_seed(self._draws)
        self._draws += 1
        chosen = torch.rand(rows.shape[1], generator=generator) < share
        return rows[:, chosen.to(rows.device)]

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._parts)
