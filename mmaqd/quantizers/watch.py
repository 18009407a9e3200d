"""Look at the inputs of a quantizer now and then, so that nothing is clipped in silence."""
from __future__ import annotations

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmaqd.functional.blocks import is_compiling

# Odd and no multiple of a number of levels, so that each level of a shared conv has its turn.
_EVERY = 101
_WARNING = 30


class InputWatch:
    """Says at which calls to look, and warns of negative inputs once."""

    def __init__(self) -> None:
        self._calls = 0
        self._has_warned = False

    def is_due(self, training: bool) -> bool:
        """Whether to look at this call: the first one and, in training, every 101st."""
        if is_compiling():
            return False
        calls = self._calls
        self._calls = calls + 1
        return not calls or (training and not calls % _EVERY)

    def warn_of_negative(self, name: str, x: Tensor) -> None:
        """Log a warning if ``x`` is negative anywhere and none was logged before."""
        if self._has_warned:
            return
        lowest = x.detach().min().item()
        if lowest < 0:
            self._has_warned = True
            print_log(
                f'{name}: its input holds {lowest:.4g}, but its codes are unsigned: negative '
                'values are clipped to zero. Feed the layer by a ReLU or give it a quantizer that '
                'takes negative inputs. (This is said once; it is looked at now and then.)',
                'current',
                level=_WARNING)


def can_look(x: Tensor) -> bool:
    """Whether ``x`` has values that may be read now."""
    if torch.jit.is_tracing() or x.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    # Other types stand for tensors without values, as those of torch.export do.
    return type(x) in (Tensor, nn.Parameter) and x.device.type != 'meta' and x.numel() > 0
