"""Stop before a loss that is no number spoils the weights, and say where it comes from."""
from __future__ import annotations

from contextlib import contextmanager
from types import MethodType
from typing import Any, Iterator

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmaqd.quantizers import modes_kept
from mmaqd.registry import HOOKS

from .arguments import check_positive


class InvalidLossError(RuntimeError):
    """A training loss is NaN or infinite."""


@HOOKS.register_module()
class RefuseInvalidLossHook(Hook):
    """Ends a training whose loss is NaN or infinite, before the step of the optimizer.

    The error names the losses, the first module that put out something that is no finite number,
    and the images of the batch. With several processes each looks at its own batch. On a GPU every
    look waits for the loss, which costs little where the loss is logged often; see ``interval``.
    (Mixed precision skips such steps by itself, up to a point, so nothing is looked at there.)

    Args:
        interval: Iterations between two looks, at least 1.
    """

    def __init__(self, interval: int = 1) -> None:
        check_positive(self, interval=interval)
        self.interval = interval
        self._batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        if hasattr(runner.optim_wrapper, 'loss_scaler'):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parse = model.parse_losses

        def parse_losses(_: nn.Module, losses: dict) -> tuple:
            total, logged = parse(losses)
            if runner.iter % self.interval == 0 and not bool(torch.isfinite(total)):
                raise InvalidLossError(_what_happened(runner, model, logged, self._batch))
            return total, logged

        model.parse_losses = MethodType(parse_losses, model)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch

    def after_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.__dict__.pop('parse_losses', None)


def _what_happened(runner: Runner, model: nn.Module, losses: dict, batch: Any) -> str:
    wrong = [name for name, value in losses.items() if not bool(torch.isfinite(value).all())]
    values = ', '.join(f'{name}={float(losses[name]):g}' for name in wrong)
    spoiled = [name for name, each in model.named_parameters() if not _is_finite(each)]
    if spoiled:
        where = f'The weights are so already: {spoiled[0]} and {len(spoiled) - 1} others.'
    else:
        module = _first_invalid_module(model, batch)
        where = (f'{module} is the first module that put out NaN or infinity.' if module else
                 'All modules put out finite numbers, so it comes from the loss: look at the boxes '
                 'and labels.')
    return (f'Epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {values}. {where} The batch: '
            f'{_images(batch)}. The weights were not touched. Lower the learning rate, add '
            'optim_wrapper.clip_grad, or mend these images, and go on with --resume.')


def _first_invalid_module(model: nn.Module, batch: Any) -> str | None:
    """Name of the first module whose output is no finite number, with its inputs finite."""
    found: list[str] = []
    with _watched(model, found), modes_kept(model), torch.no_grad():
        state = {name: buffer.clone() for name, buffer in model.named_buffers()}
        try:
            model(**model.data_preprocessor(batch, training=True), mode='loss')
        except Exception:  # of a loss that can't take NaN
            pass
        for name, buffer in model.named_buffers():
            buffer.copy_(state[name])
    return found[0] if found else None


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:

    def watcher(name: str) -> Any:

        def watch(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _is_finite(output):
                found.append(name)

        return watch

    # A module of modules ends after its parts, so the innermost one comes first.
    handles = [
        module.register_forward_hook(watcher(name)) for name, module in model.named_modules()
        if name and name != 'data_preprocessor'
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, (list, tuple)) else True


def _images(batch: Any) -> str:
    samples = batch.get('data_samples', ()) if isinstance(batch, dict) else ()
    names = [str(sample.get('img_path', sample.get('img_id', '?'))) for sample in samples]
    return ', '.join(names) or 'unknown'
