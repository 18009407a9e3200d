"""Start a low-bit model from the checkpoint of one of other bits."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmaqd.checkpoints import change_bits
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
            ``mmaqd.InitializeIntervalsHook`` initializes them from the data. ``'keep'``: they are
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
