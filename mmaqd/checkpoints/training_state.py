"""Whether training can go on from a checkpoint, and what goes on differently."""
from __future__ import annotations

import math
import os.path as osp
from typing import Any, Iterator

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from .errors import CheckpointError
from .fitting import naming_the_file, refuse_low_bits_in_float
from .keys import quantizer_names, quantizers_of, refuse_stored_codes

#: Entry of the message hub by which a checkpoint tells how many processes trained.
WORLD_SIZE = 'world_size'
_HUB_PARTS = ('log_scalars', 'runtime_info', 'resumed_keys')


class ResumeCheck(Hook):
    """Looks at what a runner resumes from, after it is read and before anything is loaded.

    A :class:`CheckpointError` says why training can't go on from it; a warning of the runner's
    logger, what starts anew or goes on differently. Paths that the checkpoint brings are dropped
    where they are not of this run.

    Args:
        path: The file, for messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        refuse_stored_codes(checkpoint.get('state_dict', {}))
        self._check_progress(checkpoint)
        self._check_hub(checkpoint)
        self._check_quantizers(runner, checkpoint)
        self._check_optimizer(runner, checkpoint)
        self._check_schedulers(runner, checkpoint)
        info = checkpoint['message_hub']['runtime_info']
        self._warn_of_another_pace(runner, checkpoint['meta'], info.pop(WORLD_SIZE, None))
        keep_own_paths(info, runner)

    def _refuse(self, what: str) -> None:
        raise CheckpointError(
            f'Training can\'t go on from the checkpoint {self.path!r}: {what}. To start from its '
            'weights, give it as load_from, without --resume.')

    def _check_progress(self, checkpoint: dict) -> None:
        meta = checkpoint.get('meta', {})
        if 'epoch' not in meta and 'optimizer' not in checkpoint:
            self._refuse('it holds weights only, no epoch and no optimizer')
        for key in ('epoch', 'iter'):
            if type(meta.get(key)) is not int or meta[key] < 0:
                self._refuse(f'its meta.{key} is {meta.get(key, "missing")!r}, expected a number '
                             'of at least 0')
        if type(meta.get('seed')) not in (int, type(None)):
            self._refuse(f'its meta.seed is {meta["seed"]!r}, expected an integer')

    def _check_hub(self, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub', {})
        wrong = [key for key in _HUB_PARTS if not isinstance(hub.get(key), dict)]
        if wrong:
            self._refuse(f'its message_hub has no {wrong[0]}')
        broken = [
            key for key, value in hub['log_scalars'].items()
            if isinstance(value, HistoryBuffer) and not hasattr(value, '_log_history')
        ]
        if broken:
            self._refuse(f'its logged values {broken[0]!r} have no history')

    def _check_quantizers(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint.get('state_dict', checkpoint)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = list(quantizers_of(model))
        with naming_the_file(self.path):
            refuse_low_bits_in_float(model, state)
        if own and not quantizer_names(state):
            self._refuse('it is that of a float model, and the model has low bits')
        anew = [name for name in own if not _is_initialized(state, name)]
        if anew:
            runner.logger.warning(
                f'{len(anew)} of {len(own)} quantizers have no value in {self.path} and start '
                f'anew, so training does not go on as it was: {", ".join(anew[:3])}'
                f'{", ..." if len(anew) > 3 else ""}.')

    def _check_optimizer(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint:
            runner.logger.warning(
                f'{self.path} has no optimizer state (one of save_best has none): momentum and '
                'the like start anew, so training does not go on as it was.')
            return
        given, wrapper = checkpoint['optimizer'], runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not isinstance(wrapper, OptimWrapperDict):
            found, own = _group_sizes(given), _group_sizes(wrapper.optimizer.state_dict())
            if found != own:
                self._refuse(f'its optimizer has the groups of parameters {found}, that of this '
                             f'run {own} (the number of parameters in each)')
            if not all(map(_fits, _states_by_parameter(given, wrapper.optimizer))):
                self._refuse('the state of its optimizer does not have the shapes of the '
                             'parameters')
        for key, value in _numbers(given, 'optimizer'):
            if not math.isfinite(value):
                self._refuse(f'{key} holds NaN or infinity')

    def _check_schedulers(self, runner: Runner, checkpoint: dict) -> None:
        own = [
            each.state_dict() for each in _listed(runner.param_schedulers)
            if isinstance(each, _ParamScheduler)
        ]
        if not own:
            return
        if 'param_schedulers' not in checkpoint:
            runner.logger.warning(
                f'{self.path} has no state of the schedulers: the learning rate starts anew.')
            return
        given = _listed(checkpoint['param_schedulers'])
        if type(checkpoint['param_schedulers']) is not type(
                runner.param_schedulers) or not all(isinstance(each, dict) for each in given):
            self._refuse('its param_schedulers are not the states of schedulers')
        if [set(each) for each in given] != [set(each) for each in own]:
            runner.logger.warning(
                f'{self.path} has the state of {len(given)} schedulers, this run has {len(own)} '
                'or others: the learning rate goes on differently.')
        for each, other in zip(given, own):
            wrong = [key for key in each if key in other and not _like(each[key], other[key])]
            if wrong:
                self._refuse(f'{wrong[0]} of a scheduler is {each[wrong[0]]!r}')

    def _warn_of_another_pace(self, runner: Runner, meta: dict, processes: Any) -> None:
        if isinstance(processes, int) and processes != runner.world_size:
            runner.logger.warning(
                f'{self.path} was trained by {processes} processes, and {runner.world_size} go '
                'on: the batch in all is another one, and the learning rate may not suit it.')
            return
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        batches = len(loop.dataloader)
        if meta['epoch'] > loop.max_epochs:
            runner.logger.warning(f'{self.path} is of epoch {meta["epoch"]}, after the last one '
                                  f'({loop.max_epochs}): nothing is left to train.')
        if meta['iter'] != meta['epoch'] * batches:
            runner.logger.warning(
                f'{self.path} is of iteration {meta["iter"]} after {meta["epoch"]} epochs, and '
                f'this run has {batches} iterations an epoch: the number of processes, the batch '
                'size or the data are others, and the schedule goes on differently.')


def keep_own_paths(info: dict, runner: Runner) -> None:
    """Drop what ``runtime_info`` of a checkpoint names for MMEngine's CheckpointHook to delete.

    The hook deletes the best checkpoint when there is a better one, file or folder, and those that
    are too many by their numbers. Kept are paths in the folder that the run writes to; one whose
    file was moved into it is mended.

    Args:
        info: ``runtime_info`` of a checkpoint's message hub; changed in place.
        runner: The run that goes on.
    """
    folders = [runner.work_dir] + [
        osp.join(hook.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))
        for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir
    ]
    for key in [key for key in info if key.startswith('best_ckpt') or key == 'last_ckpt']:
        path = _inside(info.pop(key), folders)
        if path is not None:
            info[key] = path
    if 'keep_ckpt_ids' in info:
        ids = info.pop('keep_ckpt_ids')
        info['keep_ckpt_ids'] = [each for each in ids
                                 if type(each) is int] if isinstance(ids, (list, tuple)) else []


def _inside(path: Any, folders: list[str]) -> str | None:
    """The path, if it names a checkpoint straight in one of the folders; or such a one there."""
    if not isinstance(path, str) or not path.endswith('.pth'):
        return None
    for folder in folders:
        for candidate in (path, osp.join(folder, osp.basename(path))):
            if osp.realpath(osp.dirname(candidate)) == osp.realpath(folder) and (
                    osp.isfile(candidate) and not osp.islink(candidate)):
                return candidate
    return None


def _is_initialized(state: dict, name: str) -> bool:
    value = state.get(f'{name}.initialized')
    if value is None:  # one for all levels
        value = state.get(f'{name.rpartition(".")[0]}.initialized')
    return isinstance(value, Tensor) and value.numel() == 1 and bool(value)


def _group_sizes(state: Any) -> Any:
    try:
        return [len(group['params']) for group in state['param_groups']]
    except (KeyError, TypeError):
        return 'none'


def _states_by_parameter(state: dict, optimizer: torch.optim.Optimizer) -> Iterator[tuple]:
    """Each parameter and what a saved state of its optimizer holds for it."""
    own = [parameter for group in optimizer.param_groups for parameter in group['params']]
    keys = [key for group in state['param_groups'] for key in group['params']]
    saved = state.get('state')
    for parameter, key in zip(own, keys):
        yield parameter, saved.get(key, {}) if isinstance(saved, dict) else None


def _fits(pair: tuple[Tensor, Any]) -> bool:
    parameter, state = pair
    return isinstance(state, dict) and all(
        each.shape == parameter.shape
        for each in state.values() if isinstance(each, Tensor) and each.dim() == parameter.dim())


def _listed(schedulers: Any) -> list:
    """The schedulers of one optimizer, or of several by their names."""
    if isinstance(schedulers, dict):
        return [each for group in schedulers.values() for each in _listed(group)]
    return list(schedulers) if isinstance(schedulers, (list, tuple)) else []


def _like(found: Any, own: Any) -> bool:
    """Whether a value is of the kind of another one, and finite if that is."""
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        return is_number and (math.isfinite(found) or not math.isfinite(own))
    return own is None or found is None or isinstance(found, type(own)) or callable(own)


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """The floats in a nested state; a tensor counts by its sum, which is finite if all are."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _numbers(each, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _numbers(each, f'{key}[{index}]')
    elif isinstance(value, Tensor) and value.is_floating_point():
        yield key, float(value.sum(dtype=torch.float64))
    elif isinstance(value, float):
        yield key, value
