"""What the state of a quantizer tells without the quantizer."""
from __future__ import annotations

from typing import Mapping, Optional

import torch
from torch import Tensor


def state_interval(state: Mapping[str, Tensor], is_weight: bool) -> Optional[Tensor]:
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
    length = state['step_size'] * (2**(bits - 1) if is_weight else 2**bits - 1)
    offset = state.get('offset', torch.zeros_like(length))
    return torch.maximum(offset.abs(), (offset + length).abs())
