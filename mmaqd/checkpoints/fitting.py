"""Refuse a checkpoint that belongs to another detector, whatever way it comes."""
from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

import torch.nn as nn
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor

from mmaqd.quantizers import CheckpointMismatchError, Quantizer

from .contents import file_of, mark_as_loaded
from .errors import CheckpointError
from .keys import quantizer_names, quantizers_of, spread_levels
from .values import check_values

_EXAMPLES = 3
_load_state_dict_of_mmengine = mmengine_checkpoint.load_state_dict


def load_state_dict(module: nn.Module,
                    state_dict: Mapping[str, Tensor],
                    strict: bool = False,
                    logger: Any = None) -> None:
    """MMEngine's function of this name, which every loader of it ends in, with checks before it.

    Nothing is changed if one of them fails.

    Args:
        module: Any model.
        state_dict: What is loaded into it.
        strict, logger: As MMEngine takes them.

    Raises:
        CheckpointMismatchError: The state of a low-bit model and a float one, or see
            :func:`refuse_foreign_state`.
        CheckpointError: A value can't be, see :func:`check_values`.
    """
    with naming_the_file(file_of(state_dict)):
        refuse_low_bits_in_float(module, state_dict)
        if not _checks_its_state(module):
            check_values(module, state_dict)
    _load_state_dict_of_mmengine(module, mark_as_loaded(state_dict, None), strict, logger)


def refuse_foreign_state(model: nn.Module) -> None:
    """Make loading a state dict into ``model`` an error if it belongs to another model.

    MMEngine loads what fits and logs the rest, so a detector can end up with untrained layers. A
    state dict is accepted if it has every key of the model in its shape and no other, where it may
    lack quantizers, as a float checkpoint does, but not parts of one, and may have one BN, or one
    quantizer of the inputs, for all levels. A state that did not come from a file may also be a
    part, if torch's ``strict=False`` says so.
    """
    model._register_load_state_dict_pre_hook(_check_state, with_module=True)


def refuse_low_bits_in_float(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise a :class:`CheckpointMismatchError` if only the state has quantizers."""
    names = quantizer_names(state)
    if names and not any(isinstance(each, Quantizer) for each in module.modules()):
        raise CheckpointMismatchError(
            f'The checkpoint does not belong to this {type(module).__name__}: it is that of a '
            f'low-bit model, with the quantizers {_some(names)}, and this one is a float model, '
            'in which its weights detect nothing. Use the low-bit config that it was trained '
            "with, whose model has type='mmaqd.QuantizedDetector'.")


@contextmanager
def naming_the_file(file: str | None) -> Iterator[None]:
    """Let the errors of a block name the file that a state came from, as far as it is known."""
    try:
        yield
    except (CheckpointError, CheckpointMismatchError) as error:
        if file is None or repr(file) in str(error):
            raise
        raise type(error)(f'{error} (File: {file!r}.)') from None


def _check_state(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict, *_:
                 Any) -> None:
    given = {
        key[len(prefix):]: value
        for key, value in state_dict.items() if key.startswith(prefix)
    }
    with naming_the_file(local_metadata.get('file')):
        spread_levels(module, given)
        whole = local_metadata.get('loaded', False) or _is_strict()
        _check_structure(module, given, prefix, whole)
        check_values(module, given if whole else _without_averaged_counts(given))
        for own, quantizer in _quantizers(module).items():
            state = {key[len(own):]: given[key] for key in given if key.startswith(own)}
            if state:
                quantizer.check_state(f'{prefix}{own[:-1]}', state)


def _without_averaged_counts(state: Mapping[str, Any]) -> dict[str, Any]:
    """MMDetection's SyncNormHook gives the counts of all processes' BN as their float mean."""
    return {
        key: value
        for key, value in state.items()
        if not (key.endswith('num_batches_tracked') and isinstance(value, Tensor)
                and value.is_floating_point())
    }


def _check_structure(module: nn.Module, given: Mapping[str, Any], prefix: str, whole: bool) -> None:
    by_prefix = _quantizers(module)
    quantizers = tuple(by_prefix)
    optional = {own + key for own, each in by_prefix.items() for key in each.optional_state}
    given, expected = ({key: value for key, value in each.items() if key not in optional}
                       for each in (given, module.state_dict()))  # yapf: disable
    absent = tuple(own for own in quantizers if not any(key.startswith(own) for key in given))
    lacking = [
        key for key in expected if key not in given and not key.startswith(absent)
        and not key.endswith('num_batches_tracked')
    ]
    learned = {own + key for own, each in by_prefix.items() for key in each.learned}
    reshaped = [
        key for key in given
        if key in expected and expected[key].shape != getattr(given[key], 'shape', None)
    ]
    problems = {
        'lacks': lacking if whole else [key for key in lacking if key.startswith(quantizers)],
        'has also': [key for key in given if key not in expected],
        # Of what quantizers learn, they say themselves which option makes the shape.
        'has in another shape': [] if learned.issuperset(reshaped) else reshaped,
    }
    if any(problems.values()):
        problems['lacks'] = lacking
        found = '; '.join(f'it {verb} {_some(keys, prefix)}' for verb, keys in problems.items()
                          if keys)
        raise CheckpointMismatchError(
            f'The checkpoint does not belong to this {type(module).__name__}: {found}. Use the '
            'config that the checkpoint was trained with, or a float checkpoint of the same '
            'detector, backbone and number of classes. (mmaqd.ChangeClassesHook lets a training '
            'start from one of other classes.)')


def _is_strict() -> bool:
    """Whether what runs is a load that wants all keys.

    torch hands ``strict`` to no hook, and afterwards the model has been changed.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not nn.Module.load_state_dict.__code__:
        frame = frame.f_back
    return frame is None or frame.f_locals['strict']


def _checks_its_state(module: nn.Module) -> bool:
    """Whether loading calls :func:`_check_state`, for a model or a wrapper around one."""
    return any(
        getattr(hook, 'hook', hook) is _check_state for each in module.modules()
        for hook in each._load_state_dict_pre_hooks.values())


def _quantizers(module: nn.Module) -> dict[str, Quantizer]:
    """The quantizers of a model by the start of their keys."""
    return {f'{name}.': quantizer for name, quantizer in quantizers_of(module).items()}


def _some(keys: list[str], prefix: str = '') -> str:
    more = len(keys) - _EXAMPLES
    named = ', '.join(f'{prefix}{key}' for key in keys[:_EXAMPLES])
    return named + (f' and {more} more' if more > 0 else '')


mmengine_checkpoint.load_state_dict = load_state_dict
