"""Re-estimate BN's running statistics after training epochs."""
from __future__ import annotations

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmaqd.engine.batch_norm import copy_statistics, reestimate_batch_norm, trained_norms
from mmaqd.engine.training_data import training_batches
from mmaqd.registry import HOOKS

from .arguments import check_positive


@HOOKS.register_module()
class ReestimateBNHook(Hook):
    """Re-estimates the running statistics of BN and MultiLevelBN after training epochs.

    While training, the running statistics are moving averages over the last iterations, in which
    the weights moved too; at low bits a small step of a weight can move its code, and with it the
    statistics. This hook replaces them by mean and variance over ``num_batches`` batches, with
    the weights fixed ("PreciseBN" of arXiv:2105.07576). It runs before the epoch's validation and
    checkpoint. BN that is frozen (in evaluation mode while training) is left alone.

    With an ``EMAHook`` the statistics are those of the averaged weights, which are validated and
    saved.

    Args:
        num_batches: Training batches to look at, in each process, at least 1.
        interval: Epochs between two re-estimations, at least 1; the last epoch always has one.

    Raises:
        ValueError: An argument is out of its range; the training does not go by epochs.
    """

    def __init__(self, num_batches: int = 50, interval: int = 1) -> None:
        check_positive(self, num_batches=num_batches, interval=interval)
        self.num_batches = num_batches
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError('ReestimateBNHook works at the end of epochs, but train_cfg is an '
                             'IterBasedTrainLoop. Train by epochs, or leave the hook out.')

    def after_train_epoch(self, runner: Runner) -> None:
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        names = trained_norms(model)
        averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        source = averaged[-1] if averaged else model
        batches = training_batches(runner, self.num_batches, runner.epoch)
        reestimate_batch_norm(source, batches, names)
        for name in names if averaged else ():
            copy_statistics(source.get_submodule(name), model.get_submodule(name))
        runner.logger.info(f'Re-estimated the statistics of {len(names)} BN layers.')
