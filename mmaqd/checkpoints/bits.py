"""The state of a low-bit model becomes one that a model of other bits can load."""
from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from mmaqd.quantizers import Quantizer

from .keys import quantizers_of, refuse_stored_codes, spread_levels


def change_bits(state_dict: dict[str, Tensor], model: nn.Module, keep: bool) -> list[str]:
    """Make the state of a low-bit model one that ``model``, with other bits, can load.

    Args:
        state_dict: State of a detector of the same structure; changed in place. That of a float
            model is left as it is.
        model: A low-bit detector.
        keep: Whether the intervals of quantizers whose bits changed are kept, or left out.

    Returns:
        Names of the quantizers whose bits changed (or type, granularity, normalization).

    Raises:
        PackedWeightsError: The weights are stored codes.
        ValueError: ``keep``, and a quantizer learns something else than a clipping length.
    """
    refuse_stored_codes(state_dict)
    changed = []
    spread_levels(model, state_dict)
    for name, quantizer in quantizers_of(model).items():
        saved = {key: state_dict[key] for key in state_dict if key.startswith(f'{name}.')}
        if not saved or _fits(saved, name, quantizer):
            continue
        changed.append(name)
        if keep:
            _check_clips(name, quantizer)
            state_dict[f'{name}.bits'] = quantizer.bits.clone()
        else:
            for key in saved:
                del state_dict[key]
            quantizer.is_fresh = False  # the norm behind it has been trained with a scale like its
    return changed


def _fits(saved: dict[str, Tensor], name: str, quantizer: Quantizer) -> bool:
    state = {key[len(name) + 1:]: value for key, value in saved.items()}
    shapes = [{key: getattr(value, 'shape', None) for key, value in each.items()}
              for each in (state, quantizer.state_dict())]  # yapf: disable
    return shapes[0] == shapes[1] and quantizer.agrees_with(state)


def _check_clips(name: str, quantizer: Quantizer) -> None:
    learned = [getattr(quantizer, each) for each in quantizer.learned]
    if any(each.data_ptr() != quantizer.interval.data_ptr() for each in learned):
        raise ValueError(
            f"{name}: ChangeBitsHook(intervals='keep') keeps clipping lengths, but a "
            f'{type(quantizer).__name__} learns {", ".join(quantizer.learned)}, which means '
            "something else at other bits. Use intervals='restart'.")
