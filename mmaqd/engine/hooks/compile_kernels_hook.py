"""Train with compiled quantizer kernels."""
from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaqd.functional import LIQActivationKernel, LSQActivationKernel, compile_kernels
from mmaqd.registry import HOOKS


@HOOKS.register_module()
class CompileKernelsHook(Hook):
    """Compiles what the quantizers of the model compute, for the time of a training.

    The numbers stay the same, up to the order of sums; quantizing takes about half the time. A
    process compiles for some seconds, less where torch's compiler cache has the kernels already.
    Where they can't be compiled (no C++ compiler on a CPU, no Triton on a GPU) the log says so, and
    training goes on with kernels that are not. On a GPU LIQ has kernels of its own and needs no
    hook.
    """

    # After InitializeIntervalsHook, which has shapes of its own.
    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        compile_kernels(True, runner.model)
        device = next(runner.model.parameters()).device
        try:
            _try_kernels(device)
        except Exception as error:  # of whatever kind a compiler's failure is
            compile_kernels(False, runner.model)
            reason = str(error).strip().split('\n', 1)[0]
            runner.logger.warning(
                f'CompileKernelsHook: the kernels of the quantizers could not be compiled for '
                f'{device}, training goes on without: {type(error).__name__}: {reason}')
        else:
            runner.logger.info(f'The kernels of the quantizers are compiled for {device}.')

    def after_train(self, runner: Runner) -> None:
        compile_kernels(False, runner.model)


def _try_kernels(device: torch.device) -> None:
    # On a GPU LIQ would not be compiled.
    family = LSQActivationKernel if device.type == 'cuda' else LIQActivationKernel
    kernel = family(4).compiled()
    interval = torch.ones((), device=device)
    x = torch.rand(2, 3, 4, 5, device=device)
    kernel.backward(torch.ones_like(x), x, kernel.forward(x, interval), interval)
