"""Random numbers of data loading that follow from the position in the training alone."""
from __future__ import annotations

import random
from itertools import islice
from typing import Any, Iterable, Iterator, Sequence

import numpy as np
import torch
from mmengine.dist import get_rank

# Uses of random numbers that must not repeat each other's.
EPOCH, ITERATION, ITEM, CALIBRATION = range(4)


def seed_everything(*position: int) -> None:
    """Seed the generators of random, numpy and torch from non-negative integers."""
    seed = int(np.random.SeedSequence(position).generate_state(1)[0])
    seed_generators(seed)


def seed_generators(seed: int) -> None:
    """Seed the generators of random, numpy and torch with one number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class SeededBatch(list):
    """The indices of a batch, which seed all generators just before each of them is loaded.

    A data loader hands the list to the process that loads it, so the random numbers of an item are
    the same in any worker, however long that lives, and in the main process.

    Args:
        indices: What the data set is indexed by.
        position: What the seeds follow from, besides the place in the batch.
    """

    def __init__(self, indices: Iterable[Any] = (), position: Sequence[int] = ()) -> None:
        super().__init__(indices)
        self.position = tuple(position)

    def __iter__(self) -> Iterator[Any]:
        for place, index in enumerate(super().__iter__()):
            seed_everything(*self.position, place)
            yield index

    def __reduce__(self) -> tuple:
        # Pickling would iterate, and seed the process that sends the list to a worker.
        return SeededBatch, (self[:], self.position)


class SeededBatches:
    """A batch sampler whose items are loaded with random numbers of their own.

    Args:
        batches: The batch sampler, whose attributes this one has too.
        seed: Seed of the run.
        use: What the batches are for, :data:`ITEM` or :data:`CALIBRATION`.

    Attributes:
        epoch: Pass over the data, which the seeds follow from.
        to_skip: Number of batches that the next pass leaves out at its beginning, without loading.
    """

    def __init__(self, batches: Iterable[Sequence[Any]], seed: int, use: int = ITEM) -> None:
        self.batches = batches
        self.seed = seed
        self.use = use
        self.epoch = 0
        self.to_skip = 0
        self._begun: Iterator | None = None

    def begin(self, num_batches: int) -> int:
        """Begin a pass, which the next iteration goes on with, and leave out its first batches.

        Returns:
            How many were left out: fewer than ``num_batches`` if the pass ended.
        """
        self._begun = enumerate(self.batches)
        return sum(1 for _ in islice(self._begun, num_batches))

    def __iter__(self) -> Iterator[SeededBatch]:
        skipped, self.to_skip = self.to_skip, 0
        numbered, self._begun = self._begun or enumerate(self.batches), None
        pass_ = (self.use, self.seed, get_rank(), self.epoch)
        for number, batch in islice(numbered, skipped, None):
            yield SeededBatch(batch, (*pass_, number))

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)
