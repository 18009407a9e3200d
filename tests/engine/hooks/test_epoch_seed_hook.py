"""Random numbers of an epoch: a function of seed, epoch and rank, in workers too."""
from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmaqd.engine import EpochSeedHook, seed_worker
from mmaqd.engine.hooks import epoch_seed_hook
from mmaqd.registry import FUNCTIONS, HOOKS


class RandomNumbers(Dataset):
    """Each item is one draw of every generator."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(draw(), dtype=torch.float64)


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def start_epoch(seed: int, epoch: int) -> None:
    EpochSeedHook().before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch))


def numbers(seed: int, epoch: int) -> list[float]:
    draw()  # whatever was drawn before must not matter
    start_epoch(seed, epoch)
    return draw() + draw()


def loaded(seed: int, epoch: int) -> torch.Tensor:
    """(4, 3): the draws of an epoch's four items, by two workers."""
    start_epoch(seed, epoch)
    loader = DataLoader(RandomNumbers(), batch_size=None, num_workers=2, worker_init_fn=seed_worker)
    return torch.stack(list(loader))


def test_same_seed_and_epoch_give_the_same_numbers():
    assert numbers(3, 5) == numbers(3, 5)


@pytest.mark.parametrize('seed, epoch', [(3, 6), (4, 5), (5, 3)])
def test_another_seed_or_epoch_gives_other_numbers_of_every_generator(seed, epoch):
    assert all(one != other for one, other in zip(numbers(3, 5), numbers(seed, epoch)))


def test_another_rank_gives_other_numbers(monkeypatch):
    first = numbers(3, 5)
    monkeypatch.setattr(epoch_seed_hook, 'get_rank', lambda: 1)
    assert all(one != other for one, other in zip(first, numbers(3, 5)))


def test_epochs_of_one_seed_do_not_repeat_those_of_another():
    drawn = [tuple(numbers(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(drawn)) == len(drawn)


def test_workers_follow_the_epoch():
    assert torch.equal(loaded(3, 5), loaded(3, 5))


def test_every_item_of_every_worker_and_epoch_is_another():
    drawn = torch.cat([loaded(3, 5), loaded(3, 6)])
    assert all(len(column.unique()) == len(drawn) for column in drawn.T)


def test_seed_worker_seeds_the_other_generators_as_torch_is_seeded():
    results = []
    for seed in (7, 7, 2**40):
        torch.manual_seed(seed)
        seed_worker(0)
        results.append(draw())
    assert results[0] == results[1] != results[2]


def test_both_are_registered_for_configs():
    assert HOOKS.get('mmaqd.EpochSeedHook') is EpochSeedHook
    assert FUNCTIONS.get('mmaqd.seed_worker') is seed_worker
