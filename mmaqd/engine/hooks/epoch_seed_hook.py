"""Random numbers that depend on seed and epoch only, so that a resumed run repeats them."""
from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaqd.registry import FUNCTIONS, HOOKS


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all random generators anew at the start of every training epoch.

    MMEngine's checkpoints hold no state of random generators, so a resumed run augments its images
    differently than the run that was never stopped. With this hook and
    ``worker_init_fn=dict(type='mmaqd.seed_worker')``, ``persistent_workers=False`` in the training
    data loader, the random numbers of an epoch follow from the seed, the epoch and the rank.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        entropy = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        _seed_everything(int(entropy.generate_state(1)[0]))


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed numpy and random of a data loader's worker as torch seeded torch there.

    That seed comes from the main process's generator, so it follows :class:`EpochSeedHook`.
    """
    _seed_everything(torch.initial_seed())
