"""Weights shared by several calls: quantized once in each direction, the same numbers."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmaqd.functional import ConvGeometry, LIQWeightKernel, QuantizedWeight
from tests.functional.test_quant_conv import INPUT, Operands, fused

GEOMETRY = ConvGeometry(padding=(1, 1))
SIZES = [(9, 8), (5, 4), (3, 2)]


@dataclass(frozen=True)
class CountingKernel(LIQWeightKernel):
    """Counts how often weights are quantized."""

    calls: list = field(default_factory=list)

    def forward(self, w: Tensor, interval: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append('forward')
        return super().forward(w, interval, **kwargs)

    def prepare(self, w: Tensor, interval: Tensor) -> Any:
        self.calls.append('prepare')
        return super().prepare(w, interval)


def run_levels(o: Operands, kernel: LIQWeightKernel, shared: QuantizedWeight | None) -> Tensor:
    """One conv over maps of several sizes, as a head does."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for size in SIZES:
        o.x = torch.randn(1, 4, *size, dtype=torch.float64, generator=generator)
        total = total + fused(o, GEOMETRY, INPUT, kernel, shared=shared).pow(2).sum()
    return total


def test_quantized_once_forward_and_once_backward() -> None:
    o, kernel, shared = Operands(), CountingKernel(4, normalize=True), QuantizedWeight()
    o.leaves()
    loss = run_levels(o, kernel, shared)
    assert kernel.calls == ['prepare', 'forward']
    shared.release()
    loss.backward()
    assert kernel.calls == ['prepare', 'forward', 'forward']


def test_sharing_changes_no_number() -> None:
    o, kernel = Operands(), CountingKernel(4, normalize=True)
    leaves = o.leaves()[1:]  # not x, of which there is one a level
    losses = []
    for shared in (None, QuantizedWeight()):
        loss = run_levels(o, kernel, shared)
        if shared is not None:
            shared.release()
        losses.append((loss, *torch.autograd.grad(loss, leaves)))
    for one, other in zip(*losses):
        assert torch.equal(one, other)
    assert kernel.calls.count('forward') == 2 * len(SIZES) + 2


def test_values_are_kept_until_release() -> None:
    shared, kernel = QuantizedWeight(), CountingKernel(4, normalize=True)
    arguments = kernel, torch.arange(6.0), (torch.tensor(1.5), )
    values = shared.get(*arguments)
    assert shared.get(*arguments) is values
    shared.release()
    again = shared.get(*arguments)
    assert again is not values and torch.equal(again, values)
    assert kernel.calls == ['prepare', 'forward', 'forward']


def test_one_object_serves_autocast_and_float32() -> None:
    o, shared = Operands(dtype=torch.float32), QuantizedWeight()
    with torch.autocast('cpu', torch.bfloat16):
        low = fused(o, GEOMETRY, shared=shared)
    assert torch.equal(fused(o, GEOMETRY, shared=shared), fused(o, GEOMETRY))
    assert low.dtype == torch.bfloat16
