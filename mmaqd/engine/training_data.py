"""Batches of the training data besides those of the training, and their order after resuming."""
from __future__ import annotations

from itertools import islice
from typing import Any, Iterator

import torch
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from .seeding import CALIBRATION, SeededBatches


def training_batches(runner: Runner, num_batches: int, epoch: int = 0) -> Iterator[Any]:
    """Batches of the training data, by a data loader of their own.

    The training's own loader, its iterator and its workers stay as they are, and so does what an
    infinite sampler gives next.

    Args:
        runner: A runner with a training loop.
        num_batches: The most to give.
        epoch: Which order a sampler that shuffles gives, and which augmentations.

    Yields:
        What the training loader gives.
    """
    loader = runner.train_dataloader
    if not isinstance(loader, DataLoader):
        yield from islice(loader, num_batches)
        return
    options = dict(
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context)
    if is_indexed(loader):
        batches = fresh_batch_sampler(runner) or _shuffled(loader, runner.seed)
        set_epoch(batches, epoch)
        seeded = SeededBatches(batches, runner.seed, CALIBRATION)
        seeded.epoch = epoch
        own = DataLoader(loader.dataset, batch_sampler=seeded, **options)
    else:
        own = DataLoader(loader.dataset, loader.batch_size, drop_last=loader.drop_last, **options)
    yield from islice(own, num_batches)


def is_indexed(loader: Any) -> bool:
    """Whether a loader asks its data set for batches of indices."""
    return (isinstance(loader, DataLoader) and loader.batch_sampler is not None
            and not isinstance(loader.dataset, IterableDataset))


def sampler_of(loader: DataLoader) -> Any:
    """What decides on the order of the data: the sampler, that of the batch sampler if it has one.
    """
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def set_epoch(batches: Any, epoch: int) -> None:
    """Let the sampler of a batch sampler shuffle as in an epoch, if it does."""
    sampler = getattr(batches, 'sampler', None)
    if hasattr(sampler, 'set_epoch'):
        sampler.set_epoch(epoch)


def fresh_batch_sampler(runner: Runner) -> BatchSampler | None:
    """The batch sampler of the training data as it was before anything was taken from it.

    Returns:
        None if the runner was not given the sampler's config.
    """
    cfg, loader = runner._train_dataloader, runner.train_dataloader
    if not isinstance(cfg, dict) or not isinstance(cfg.get('sampler'), dict):
        return None
    seed = getattr(sampler_of(loader), 'seed', runner.seed)
    sampler = DATA_SAMPLERS.build(
        cfg['sampler'], default_args=dict(dataset=loader.dataset, seed=seed))
    if cfg.get('batch_sampler') is None:
        return BatchSampler(sampler, cfg['batch_size'], bool(cfg.get('drop_last', False)))
    if not isinstance(cfg['batch_sampler'], dict):
        return None
    return DATA_SAMPLERS.build(
        cfg['batch_sampler'], default_args=dict(sampler=sampler, batch_size=cfg['batch_size']))


def _shuffled(loader: DataLoader, seed: int) -> BatchSampler:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loader.dataset), generator=generator).tolist()
    return BatchSampler(order, loader.batch_size or 1, drop_last=False)


class RepeatedBatches:
    """The iterator of an iteration-based loop, over the data again and again.

    Args:
        loader: The data loader.
        batches: Its batch sampler.
        done: Number of batches that were trained on already. The loop asks for them first; they
            are not loaded, and None is given for each.

    Raises:
        ValueError: The loader gives no batch.
    """

    def __init__(self, loader: DataLoader, batches: SeededBatches, done: int = 0) -> None:
        self.loader = loader
        self.batches = batches
        self._to_skip = done
        self._epoch = 0
        while done:
            set_epoch(batches, self._epoch)
            left_out = batches.begin(done)
            if not left_out:
                raise _no_batches()
            done -= left_out
            self._epoch += bool(done)
        self._iterator: Iterator | None = None

    def __iter__(self) -> RepeatedBatches:
        return self

    def __next__(self) -> Any:
        if self._to_skip:
            self._to_skip -= 1
            return None
        if self._iterator is None:
            self._begin_epoch(self._epoch)
        try:
            return next(self._iterator)
        except StopIteration:
            self._begin_epoch(self._epoch + 1)
        batch = next(self._iterator, None)
        if batch is None:
            raise _no_batches()
        return batch

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch = self.batches.epoch = epoch
        set_epoch(self.batches, epoch)
        self._iterator = iter(self.loader)


def _no_batches() -> ValueError:
    return ValueError('train_dataloader gives no batch: its data set is empty, or smaller than a '
                      'batch with drop_last=True.')
