"""What the state of a quantizer tells without the quantizer."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from mmaqd.functional import twos_complement_grid, unsigned_grid


def state_interval(state: Mapping[str, Tensor], is_weight: bool) -> Tensor | None:
    """The attribute ``interval`` of the quantizer that a state was saved from.

    Args:
        state: State dict of one quantizer of ours.
        is_weight: Whether it is a quantizer of weights, whose codes are signed.

    Returns:
        () or (num_channels,); None if the quantizer has learned nothing.
    """
    for key in ('interval', 'alpha'):
        if key in state:
            return state[key]
    if 'step_size' not in state:
        return None
    bits = int(state['bits'])
    is_signed = is_weight or 'signed' in state
    grid = twos_complement_grid(bits) if is_signed else unsigned_grid(bits)
    length = state['step_size'] * grid.magnitude
    offset = state.get('offset', torch.zeros_like(length))
    return torch.maximum(offset.abs(), (offset + length).abs())
