"""Start a detector from the checkpoint of one of other classes."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmaqd.checkpoints import change_classes
from mmaqd.registry import HOOKS


@HOOKS.register_module()
class ChangeClassesHook(Hook):
    """Lets ``load_from`` name the checkpoint of a float or low-bit model of other classes.

    Without it loading other classes into a low-bit model is an error. The layers that predict the
    classes keep their random start, and a warning names them; the rest is loaded. Where the
    checkpoint is a low-bit one, ``mmaqd.InitializeIntervalsHook`` initializes the quantizers of
    those weights from the data. It works when training starts; resuming and testing take the
    model's own classes only.

    Raises:
        CheckpointMismatchError: On loading, if more than the number of classes differs.
    """

    # EMAHook, of normal priority, copies what is loaded.
    priority = 'ABOVE_NORMAL'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        layers = change_classes(checkpoint.get('state_dict', checkpoint), model)
        if layers:
            runner.logger.warning(
                'The model has other classes than the checkpoint. Not taken from it, so they start '
                f'at random: {", ".join(layers)}.')
