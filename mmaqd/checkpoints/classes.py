"""The state of a detector becomes one that a detector of other classes can load."""
from __future__ import annotations

from typing import Any, Mapping

import torch.nn as nn
from torch import Tensor

from mmaqd.quantizers import CheckpointMismatchError

from .keys import spread_levels


def change_classes(state_dict: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Make the state of a detector one that ``model``, with other classes, can load.

    Layers whose number of outputs follows from that of the classes keep what they have in
    ``model``; with their weights the quantizer of these goes, which starts from the data again.

    Args:
        state_dict: State of a float or low-bit detector of the same structure; changed in place.
        model: A detector with ``num_classes``.

    Returns:
        Names of the layers that are not taken from the state.

    Raises:
        CheckpointMismatchError: Shapes differ in a way that another number of classes doesn't
            explain; the state is left as it is.
    """
    own = model.state_dict()
    spread_levels(model, state_dict)
    differing = {
        key: (tuple(state_dict[key].shape), tuple(own[key].shape))
        for key in own if isinstance(state_dict.get(key), Tensor)
        and state_dict[key].shape != own[key].shape and '_quantizer.' not in key
    }
    _check_classes(differing, model)
    layers = list(dict.fromkeys(key.rpartition('.')[0] for key in differing))
    for layer in layers:
        for key in [key for key in state_dict if key.startswith(f'{layer}.weight_quantizer.')]:
            del state_dict[key]
        state_dict.update({
            f'{layer}.{name}': value.clone()
            for name, value in _layer_state(own, layer).items()
        })
    return layers


def _layer_state(own: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    """The weight and the bias of a layer, without what lies in its submodules."""
    names = {key: key[len(layer) + 1:] for key in own if key.startswith(f'{layer}.')}
    return {name: own[key] for key, name in names.items() if '.' not in name}


def _check_classes(differing: Mapping[str, tuple], model: nn.Module) -> None:
    """Refuse shapes that no number of classes of the checkpoint would explain all at once."""
    possible: set[int] | None = None
    own = {getattr(module, 'num_classes', None) for module in model.modules()} - {None}
    for found, expected in differing.values():
        explained = set()
        if found[1:] == expected[1:]:
            for classes in own:
                explained |= _classes(found[0], expected[0], classes)
        possible = explained if possible is None else possible & explained
    if differing and not possible:
        key, (found, expected) = next(iter(differing.items()))
        raise CheckpointMismatchError(
            f'ChangeClassesHook: the shapes of {len(differing)} values differ in more than the '
            f'number of classes, such as {key}: {found} in the checkpoint, {expected} in the '
            'model. Give a checkpoint of the same detector and backbone.')


def _classes(found: int, expected: int, classes: Any) -> set[int]:
    """Numbers of classes with which a layer of ``expected`` outputs would have ``found``."""
    explained = set()
    for background in (0, 1):  # heads with softmax have an output for it
        outputs, rest = divmod(expected, classes + background)
        if outputs and not rest and found % outputs == 0:
            explained.add(found // outputs - background)
    return explained
