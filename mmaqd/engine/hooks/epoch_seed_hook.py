"""Random numbers that depend on seed and position only, so that a resumed run repeats them."""
from __future__ import annotations

from typing import Any, Iterator

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn

from mmaqd.engine.seeding import EPOCH, ITERATION, SeededBatches, seed_everything, seed_generators
from mmaqd.engine.training_data import RepeatedBatches, fresh_batch_sampler, is_indexed, sampler_of
from mmaqd.registry import FUNCTIONS, HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Makes a resumed training equal to the bit to one that was never stopped.

    MMEngine's checkpoints hold no state of random generators. With this hook the random numbers of
    a training follow from the seed and the rank and: those of an iteration from its number; those
    that load an item from its place in the data, in whatever worker; so workers may persist. It
    works with epoch-based and iteration-based loops. What was trained on already is skipped
    without being loaded, also where a checkpoint was saved in the middle of an epoch
    (``CheckpointHook(by_epoch=False)``).

    Where something else keeps a state that no checkpoint has, the log says so when training starts.
    """

    # Before the hooks that draw random numbers.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._built_with: int | None = None
        self._batches: SeededBatches | None = None
        self._done_of_epoch = 0

    def before_run(self, runner: Runner) -> None:
        self._built_with = runner.seed

    def before_train(self, runner: Runner) -> None:
        reasons = list(_what_is_lost(runner))
        loop, loader = runner.train_loop, runner.train_dataloader
        if is_indexed(loader):
            self._take_resumed_seed(runner)
            if isinstance(loop, IterBasedTrainLoop):
                batches = fresh_batch_sampler(runner)
                if batches is None and loader.num_workers:
                    reasons.append('the sampler is not given by a config, and the workers have '
                                   'taken batches from it')
                self._seed_loader(runner, batches)
                loop.dataloader_iterator = RepeatedBatches(loader, self._batches, loop.iter)
            else:
                self._seed_loader(runner)
                self._done_of_epoch = loop.iter - loop.epoch * len(loader)
                if not 0 <= self._done_of_epoch <= len(loader):
                    reasons.append(f'an epoch has {len(loader)} iterations, which iteration '
                                   f'{loop.iter} in epoch {loop.epoch} contradicts: batch size or '
                                   'number of processes changed')
                    self._done_of_epoch = 0
        if reasons:
            runner.logger.warning('A training that is stopped and resumed will not equal one that '
                                  f'never stopped, to the bit: {"; ".join(reasons)}.')

    def before_train_epoch(self, runner: Runner) -> None:
        seed_everything(EPOCH, runner.seed, runner.epoch, get_rank())
        if self._batches is None or isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        self._batches.epoch = runner.epoch
        self._batches.to_skip, self._done_of_epoch = self._done_of_epoch, 0
        if self._batches.to_skip:
            runner.logger.info(f'Epoch {runner.epoch + 1} was trained on before: its first '
                               f'{self._batches.to_skip} batches are skipped.')

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        seed_everything(ITERATION, runner.seed, runner.iter, get_rank())

    def _take_resumed_seed(self, runner: Runner) -> None:
        """Give the sampler the seed that came with the checkpoint."""
        sampler = sampler_of(runner.train_dataloader)
        if getattr(sampler, 'seed', None) == self._built_with:
            sampler.seed = runner.seed

    def _seed_loader(self, runner: Runner, batches: Any = None) -> None:
        loader = runner.train_dataloader
        current = loader.batch_sampler
        if batches is None:
            batches = current.batches if isinstance(current, SeededBatches) else current
        self._batches = SeededBatches(batches, runner.seed)
        # Its own setter refuses to change what a data loader goes by.
        loader.__dict__['batch_sampler'] = self._batches
        loader._iterator = None  # of persistent workers, which goes by the former


def _what_is_lost(runner: Runner) -> Iterator[str]:
    """What no checkpoint holds, as reasons why a resumed training differs."""
    loop = runner.train_loop
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        yield f'the training loop is a {type(loop).__name__}'
    if not is_indexed(runner.train_dataloader):
        yield 'the training data are not asked for by index'
    for transform in _transforms(getattr(runner.train_dataloader, 'dataset', None)):
        if hasattr(transform, 'results_cache'):
            yield f'the transform {type(transform).__name__} mixes images with those it saw before'
    preprocessor = getattr(runner.model, 'module', runner.model).data_preprocessor
    for augment in getattr(preprocessor, 'batch_augments', None) or ():
        if isinstance(augment, nn.Module) and hasattr(augment, '_input_size'):
            yield f'{type(augment).__name__} keeps its image size for several iterations'
    accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if loop.iter % accumulated:
        yield (f'iteration {loop.iter}, where it goes on, is in the middle of {accumulated} whose '
               'gradients are accumulated')


def _transforms(dataset: Any) -> Iterator[Any]:
    """The transforms of a data set and of those that it wraps."""
    pipeline = getattr(dataset, 'pipeline', None)
    yield from getattr(pipeline, 'transforms', None) or pipeline or ()
    inner = [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]
    for each in inner:
        if each is not None:
            yield from _transforms(each)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed numpy and random of a data loader's worker as torch seeded torch there.

    That seed comes from the main process's generator, so it follows :class:`EpochSeedHook`.
    """
    seed_generators(torch.initial_seed())
