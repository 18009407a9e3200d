"""Rules for ``quantization.rules`` of a config, as text to paste."""
from __future__ import annotations

from typing import Iterable

import torch.nn as nn
from torch import Tensor

TO_FLOAT = 'weight_quantizer=None, input_quantizer=None'


def rule_lines(rules: Iterable[tuple[str, str]]) -> str:
    """A block of rules, each given by its pattern and the rest of its arguments as text."""
    lines = [f'    dict(pattern={pattern!r}, {change}),' for pattern, change in rules]
    return '\n'.join(['add to quantization.rules', *lines])


def has_weights(module: nn.Module) -> bool:
    """Whether a module holds a weight, or any parameter, of two or more dimensions."""
    weight = getattr(module, 'weight', None)
    own = [weight] if isinstance(weight, Tensor) else []
    return any(each is not None and each.dim() >= 2
               for each in (*own, *module._parameters.values()))


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """First name of every module, '' becoming the name of its class."""
    return {module: name or type(module).__name__ for name, module in model.named_modules()}
