"""Refuse values that no training leaves behind and that no module can be given as they are."""
from __future__ import annotations

from typing import Any, Iterator, Mapping

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from .errors import CheckpointError
from .keys import quantizers_of


def check_values(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Check the values of a state that ``module`` also has; keys and shapes are not looked at.

    A value must be a dense tensor of the kind of number that the module has there, finite, and the
    same number after the cast to the module's dtype (float16 into float32 is). The interval or step
    size of a quantizer must be positive, the variance of a BN not negative.

    Args:
        module: Any model; nothing in it is changed.
        state: Its state, or that of another model.

    Raises:
        CheckpointError: A value is not such a one; the message names its key.
    """
    positive, not_negative = set(_positive(module)), set(_variances(module))
    for key, own in module.state_dict().items():
        value = state.get(key)
        if value is None or not isinstance(own, Tensor):
            continue
        fault = _fault(value, own)
        if fault is None and key in positive and not (value > 0).all():
            fault = f'is {_least(value)}, and an interval or step size is positive'
        if fault is None and key in not_negative and (value < 0).any():
            fault = f'is {_least(value)}, and a variance is not negative'
        if fault:
            raise CheckpointError(
                f'The checkpoint holds a value that can\'t be: {key} {fault}. Take an earlier '
                'checkpoint, or save this one again where it was made.')


def _fault(value: Any, own: Tensor) -> str | None:
    """What is wrong with one value, whatever it stands for."""
    if not isinstance(value, Tensor):
        return f'is a {type(value).__name__}, not a tensor'
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return f'is not a dense tensor but {str(value.layout).replace("torch.", "")}'
    if own.is_meta:
        return None
    if value.is_meta:
        return 'is on the device meta, so it has no values'
    if _kind(value) != _kind(own):
        return f'is of {value.dtype}, but the model has {own.dtype} there'
    if value.is_floating_point() and not _is_finite(value) and _is_finite(own):
        return 'holds NaN or infinity'
    if value.dtype != own.dtype and not torch.equal(value.to(own.dtype).to(value.dtype), value):
        return f'is of {value.dtype}, and its numbers do not fit the {own.dtype} of the model'
    return None


def _kind(value: Tensor) -> str:
    if value.dtype == torch.bool:
        return 'bool'
    if value.is_complex():
        return 'complex'
    return 'float' if value.is_floating_point() else 'integer'


def _is_finite(value: Tensor) -> bool:
    # A sum is finite only if all are; where it overflows, a closer look follows.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _least(value: Tensor) -> str:
    return f'{float(value.min()):.4g}'


def _positive(module: nn.Module) -> Iterator[str]:
    for name, quantizer in quantizers_of(module).items():
        if quantizer.learned:
            yield f'{name}.{quantizer.learned[0]}' if name else quantizer.learned[0]


def _variances(module: nn.Module) -> Iterator[str]:
    for name, norm in module.named_modules(remove_duplicate=False):
        if isinstance(norm, _NormBase):
            yield f'{name}.running_var' if name else 'running_var'
