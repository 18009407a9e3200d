"""Start a low-bit model from the checkpoint of one of other bits."""
from __future__ import annotations

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from mmaqd.layers import MultiLevelModule
from mmaqd.quantizers import Quantizer
from mmaqd.registry import HOOKS

_INTERVALS = ('restart', 'keep')


@HOOKS.register_module()
class ChangeBitsHook(Hook):
    """Lets ``load_from`` name the checkpoint of a low-bit model of other bits.

    Without it loading other bits is an error. Weights, BN and the quantizers whose bits stay are
    loaded as they are, for the others see ``intervals``. It works when training starts; resuming
    and testing take the model's own bits only.

    Args:
        intervals: What becomes of the intervals of quantizers whose bits changed. ``'restart'``:
            ``mmaqd.InitializeIntervalsHook`` starts them from the data. ``'keep'``: they are
            clipping lengths, whatever the bits, and stay what they are.

    Raises:
        ValueError: ``intervals`` is something else; on loading with ``'keep'``, a quantizer that
            changes bits learns something else than a clipping length, as LSQ's do.
    """

    # EMAHook, of normal priority, copies what is loaded.
    priority = 'ABOVE_NORMAL'

    def __init__(self, intervals: str = 'restart') -> None:
        if intervals not in _INTERVALS:
            raise ValueError(f'ChangeBitsHook: intervals must be one of {_INTERVALS}, but got '
                             f'{intervals!r}.')
        self.intervals = intervals

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state_dict = checkpoint.get('state_dict', checkpoint)
        changed = change_bits(state_dict, model, self.intervals == 'keep')
        done = 'kept' if self.intervals == 'keep' else 'restarted'
        runner.logger.info(f'{len(changed)} quantizers have other bits than in the checkpoint; '
                           f'their intervals are {done}.')


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
        ValueError: ``keep``, and a quantizer learns something else than a clipping length.
    """
    changed = []
    for name, quantizer in model.named_modules():
        if isinstance(quantizer, MultiLevelModule):
            quantizer.spread(state_dict, f'{name}.')
        if not isinstance(quantizer, Quantizer):
            continue
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
    shapes = [{key: value.shape for key, value in each.items()}
              for each in (state, quantizer.state_dict())]  # yapf: disable
    return shapes[0] == shapes[1] and quantizer.agrees_with(state)


def _check_clips(name: str, quantizer: Quantizer) -> None:
    learned = [getattr(quantizer, each) for each in quantizer.learned]
    if any(each.data_ptr() != quantizer.interval.data_ptr() for each in learned):
        raise ValueError(
            f"{name}: ChangeBitsHook(intervals='keep') keeps clipping lengths, but a "
            f'{type(quantizer).__name__} learns {", ".join(quantizer.learned)}, which means '
            "something else at other bits. Use intervals='restart'.")
