"""Start a training from a packed file, which holds codes in place of float weights."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmaqd.checkpoints import forget_stored_codes
from mmaqd.registry import HOOKS


@HOOKS.register_module()
class TrainPackedHook(Hook):
    """Lets ``load_from`` name a packed file in a training, which is an error without it.

    The weights then start at the grid points of their codes. That is less than the checkpoint that
    was packed has: where the weights are normalized, those of the grid points have other
    statistics, so the model detects less until it has been trained for a while. Testing is not
    affected, and resuming from a packed file stays an error.
    """

    priority = 'HIGH'  # before the hooks that change bits or classes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        num_layers = forget_stored_codes(checkpoint.get('state_dict', checkpoint))
        if num_layers:
            runner.logger.warning(f'The weights of {num_layers} layers come from a packed file '
                                  'and start from the grid points of their codes.')
