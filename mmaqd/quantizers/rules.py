"""Rules for ``quantization.rules`` of a config, as text to paste."""
from __future__ import annotations

from typing import Iterable

import torch.nn as nn
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

TO_FLOAT = 'weight_quantizer=None, input_quantizer=None'


def rule_lines(rules: Iterable[tuple[str, str]]) -> str:
    """A block of rules, each given by its pattern and the rest of its arguments as text."""
    lines = [f'    dict(pattern={pattern!r}, {change}),' for pattern, change in rules]
    return '\n'.join(['add to quantization.rules', *lines])


def has_weights(module: nn.Module) -> bool:
    """Whether a module holds a weight, or any parameter, of two or more dimensions."""
    own = [weight_of(module), *module._parameters.values()]
    return any(each is not None and (is_lazy(each) or each.dim() >= 2) for each in own)


def weight_of(module: nn.Module) -> Tensor | None:
    """The ``weight`` of the module itself, a parameter or computed from others; None without one.

    A layer that works with a part of another module's parameter has ``lends_weight``.
    """
    if is_parametrized(module, 'weight') or getattr(module, 'lends_weight', False):
        return module.weight
    weight = module._parameters.get('weight', module.__dict__.get('weight'))
    return weight if isinstance(weight, Tensor) else None


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """First name of every module, '' becoming the name of its class."""
    return {module: name or type(module).__name__ for name, module in model.named_modules()}
