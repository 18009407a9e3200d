"""Log the learned intervals, and say when their training is unstable."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmaqd.quantizers import Quantizer
from mmaqd.registry import HOOKS

from .arguments import check_positive

_MAX_RATIO = 10


@HOOKS.register_module()
class LogIntervalsHook(Hook):
    """Writes every interval to the visualizer's backends as the scalar ``interval/<quantizer>``.

    It does so where the training starts, every ``interval`` iterations, and where it ends, so that
    a short training has a curve too. An interval per channel is written as its mean over the
    channels. An interval that changes by more than 10 times from one record to the next is warned
    of: that is no learning, but steps of the optimizer that are larger than the interval.

    Args:
        interval: Number of training iterations between two records, at least 1.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 50) -> None:
        check_positive(self, interval=interval)
        self.interval = interval
        self._last: dict[str, float] = {}
        self._last_step = -1

    def before_train(self, runner: Runner) -> None:
        self._record(runner, runner.iter)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._record(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        if self._last_step < runner.iter:
            self._record(runner, runner.iter)

    def _record(self, runner: Runner, step: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        intervals = {
            name: module.interval.mean().item()
            for name, module in model.named_modules()
            if isinstance(module, Quantizer) and bool(module.initialized)
        }
        if not intervals:
            return
        scalars = {f'interval/{name}': value for name, value in intervals.items()}
        runner.visualizer.add_scalars(scalars, step=step)
        self._warn_of_jumps(runner, intervals, step - self._last_step)
        self._last, self._last_step = intervals, step

    def _warn_of_jumps(self, runner: Runner, intervals: dict[str, float], iterations: int) -> None:
        last = self._last
        jumped = [
            name for name, value in intervals.items()
            if name in last and not last[name] / _MAX_RATIO <= value <= last[name] * _MAX_RATIO
        ]
        if jumped:
            others = f' (and of {len(jumped) - 1} others likewise)' if len(jumped) > 1 else ''
            runner.logger.warning(
                f'The interval of {jumped[0]}{others} went from {last[jumped[0]]:.4g} to '
                f'{intervals[jumped[0]]:.4g} within {iterations} iterations: its training is '
                'unstable. Set gradient_factor=True of its LIQ quantizer, or lower the learning '
                'rate of intervals by optim_wrapper.paramwise_cfg.custom_keys (see '
                'docs/recipes.md).')
