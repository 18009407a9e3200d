"""A kernel of every family and role, with parameters, for what holds for all of them."""
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaqd.functional import (DoReFaActivationKernel, DoReFaWeightKernel, LIQActivationKernel,
                              LIQWeightKernel, LSQActivationKernel, LSQPlusActivationKernel,
                              LSQWeightKernel, PACTActivationKernel)


class Case(NamedTuple):
    """A kernel and the start values of its parameters; a list has one for each channel."""

    kernel: Any
    values: tuple = ()

    def parameters(self, **options: Any) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(value, **options) for value in self.values)


def activations(bits: int) -> dict[str, Case]:
    """Kernels for activations, clipping at about 1.5."""
    n = 2**bits - 1
    return {
        'liq': Case(LIQActivationKernel(bits), (1.5, )),
        'lsq': Case(LSQActivationKernel(bits), (1.5 / n, )),
        'lsq_plus': Case(LSQPlusActivationKernel(bits), (1.75 / n, -0.25)),
        'pact': Case(PACTActivationKernel(bits), (1.5, )),
        'dorefa': Case(DoReFaActivationKernel(bits)),
        'dorefa_clip': Case(DoReFaActivationKernel(bits, 1.5)),
    }


def weights(bits: int, channels: int = 8) -> dict[str, Case]:
    """Kernels for weights, clipping at about 1.5; per channel at up to this."""
    steps = [(1.5 - 0.1 * channel) / 2**(bits - 1) for channel in range(channels)]
    return {
        'liq': Case(LIQWeightKernel(bits, normalize=True), (1.5, )),
        'liq_scaled': Case(LIQWeightKernel(bits, normalize=True, center=False), (1.5, )),
        'lsq': Case(LSQWeightKernel(bits), (steps[0], )),
        'lsq_channel': Case(LSQWeightKernel(bits, axis=0), (steps, )),
        'dorefa': Case(DoReFaWeightKernel(bits)),
    }
