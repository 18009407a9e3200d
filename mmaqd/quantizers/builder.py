"""Build a quantizer from a config, with errors that name what is wrong in it."""
from __future__ import annotations

import inspect
from typing import Any

import torch.nn as nn

from mmaqd.registry import QUANTIZERS


def build_quantizer(cfg: dict | nn.Module | None, **context: Any) -> nn.Module | None:
    """Build a quantizer.

    Args:
        cfg: ``dict(type=..., **arguments)``, a quantizer (returned as it is), or None.
        **context: Arguments that the layer knows (``num_channels``); given to quantizers that
            take them, unless ``cfg`` gives them.

    Returns:
        The quantizer, or None for None.

    Raises:
        KeyError: ``type`` is missing or names no quantizer.
        TypeError: ``cfg`` is something else, or has a key that the quantizer does not know.
    """
    if cfg is None or isinstance(cfg, nn.Module):
        return cfg
    if not isinstance(cfg, dict):
        raise TypeError('A quantizer is given as dict(type=..., bit_width=...), as a module or as '
                        f'None, but got {cfg!r}.')
    arguments = dict(cfg)
    arguments.pop('_scope_', None)
    quantizer_class = _quantizer_class(arguments.pop('type', None))
    known = inspect.signature(quantizer_class).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise TypeError(f'{quantizer_class.__name__} got unknown key(s) {", ".join(unknown)}; it '
                        f'knows {", ".join(known)}.')
    context = {key: value for key, value in context.items() if key in known}
    return quantizer_class(**{**context, **arguments})


def _quantizer_class(type_: Any) -> type:
    if inspect.isclass(type_):
        return type_
    found = QUANTIZERS.get(type_) if isinstance(type_, str) else None
    if found is None:
        names = ', '.join(f'mmaqd.{name}' for name in sorted(QUANTIZERS.module_dict))
        raise KeyError(f'A quantizer needs a type out of {names}, but got {type_!r}.')
    return found
