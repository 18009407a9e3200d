"""The hooks that keep what is promised of a training, wherever ``custom_hooks`` comes from."""
from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint

from mmaqd.invocation import command, same_options
from mmaqd.quantizers import Quantizer

from .hooks import EpochSeedHook, InitializeIntervalsHook, LogIntervalsHook, RefuseInvalidLossHook


def add_missing_hooks(runner: Runner) -> list[str]:
    """Register the hooks that every training needs and that a config has lost.

    ``custom_hooks`` is a list, which a config that sets it replaces as a whole. Resuming exactly
    needs :class:`EpochSeedHook`, and :class:`RefuseInvalidLossHook` stops before a NaN; a model
    with quantizers needs :class:`InitializeIntervalsHook`, and :class:`LogIntervalsHook` to say
    when their training is unstable.

    Returns:
        Names of the hooks that were added.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    needed = [EpochSeedHook, RefuseInvalidLossHook]
    if any(isinstance(module, Quantizer) for module in model.modules()):
        needed += [InitializeIntervalsHook, LogIntervalsHook]
    missing = [each for each in needed if not any(isinstance(hook, each) for hook in runner.hooks)]
    for each in missing:
        runner.register_hook(each())
    names = [f'mmaqd.{each.__name__}' for each in missing]
    if names:
        runner.logger.info(f'{", ".join(names)} added, since custom_hooks does not have them.')
    return names


def how_to_go_on(runner: Runner) -> str:
    """What to do after a training was stopped."""
    loop = runner.train_loop
    where = f'Stopped in epoch {loop.epoch + 1}, iteration {loop.iter + 1} of {loop.max_iters}.'
    checkpoint = find_latest_checkpoint(runner.work_dir)
    if checkpoint is None:
        return f'{where} No checkpoint was written yet: the same command starts afresh.'
    return f'{where} The same command with --resume goes on from {checkpoint}.'


def what_comes_next(runner: Runner, config: str, cfg_options: dict | None = None) -> str:
    """What a training has written, and what to do with it."""
    checkpoint = find_latest_checkpoint(runner.work_dir)
    if checkpoint is None:
        return (f'Trained, but no checkpoint was written to {runner.work_dir}: see '
                'default_hooks.checkpoint.')
    test = command('test', config, checkpoint, *same_options(cfg_options))
    return f'Trained: {checkpoint}. Next: {test}'
