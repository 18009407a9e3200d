"""What makes a layer behind shared convs multi-level."""
from __future__ import annotations

from typing import Any, Callable

import torch.nn as nn
from torch import Tensor


class NoLevelError(RuntimeError, AttributeError):
    """A layer with a module per pyramid level was asked for one, but works on none."""


class MultiLevelModule(nn.ModuleList):
    """One module of a kind for each pyramid level, as ``self[level]``.

    The level is named by :attr:`level`, which the head sets before it runs a level (see
    :class:`mmaqd.models.MultiLevelHeadMixin`). It is never inferred from the order of the calls.

    A checkpoint with a single module at this place, without the levels in its keys, is copied to
    every level when it is loaded.

    Args:
        make: Called once for each level; gives modules with the same keys in their states.
        num_levels: Number of pyramid levels, at least 1.

    Attributes:
        level: The level that the head is working on, None outside of it.

    Raises:
        ValueError: ``num_levels`` is not a positive integer.
    """

    def __init__(self, make: Callable[[], nn.Module], num_levels: int) -> None:
        if not isinstance(num_levels, int) or num_levels < 1:
            raise ValueError(f'{type(self).__name__}: num_levels must be the number of pyramid '
                             f'levels, an integer of at least 1, but got {num_levels!r}.')
        super().__init__(make() for _ in range(num_levels))
        self.level: int | None = None

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels that have a module of their own."""
        return len(self)

    @property
    def current(self) -> nn.Module:
        """The module of the level that the head is working on.

        Raises:
            NoLevelError: There is none: it was called outside of a head that names the level.
        """
        if self.level is None:
            raise NoLevelError(self._no_level)
        return self[self.level]

    def forward(self, x: Tensor) -> Tensor:
        return self.current(x)

    def __getattr__(self, name: str) -> Any:
        # Python comes here after a property has raised an AttributeError.
        if isinstance(getattr(type(self), name, None), property):
            if self.level is None:
                raise NoLevelError(self._no_level)
            return getattr(self.current, name)  # raises what the level raised
        return super().__getattr__(name)

    @property
    def _no_level(self) -> str:
        return (f'{type(self).__name__} was called without a pyramid level. It works in a dense '
                'head that goes over the levels and names them: use mmaqd.MultiLevelHead, '
                'mmaqd.AQDRetinaHead, AQDFCOSHead or AQDATSSHead, or put '
                'mmaqd.models.MultiLevelHeadMixin in front of your head. A backbone and a neck '
                'have no levels: use BN there.')

    def spread(self, state_dict: dict, prefix: str) -> None:
        """Copy the state of a single module to every level, in place.

        Args:
            state_dict: State of a model; left as it is where it has the levels already.
            prefix: Name of this module in the model, with a dot behind.
        """
        for key in self[0].state_dict():
            levels = [f'{prefix}{level}.{key}' for level in range(self.num_levels)]
            if prefix + key in state_dict and not any(level in state_dict for level in levels):
                state_dict.update(dict.fromkeys(levels, state_dict.pop(prefix + key)))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any,
                              **kwargs: Any) -> None:
        self.spread(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
