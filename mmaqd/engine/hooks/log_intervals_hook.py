"""Log the learned intervals."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmaqd.quantizers import Quantizer
from mmaqd.registry import HOOKS


@HOOKS.register_module()
class LogIntervalsHook(Hook):
    """Writes every interval to the visualizer's backends as the scalar ``interval/<quantizer>``.

    An interval per channel is written as its mean over the channels.

    Args:
        interval: Number of training iterations between two records.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if not self.every_n_train_iters(runner, self.interval):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        scalars = {
            f'interval/{name}': module.interval.mean().item()
            for name, module in model.named_modules() if isinstance(module, Quantizer)
        }
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
