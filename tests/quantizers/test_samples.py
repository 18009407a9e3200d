"""Samples: all of them while they are few, the same share of every call when they are many."""
from __future__ import annotations

from copy import deepcopy

import torch

from mmaqd.quantizers.samples import Samples


def test_few_samples_are_kept_as_they_came() -> None:
    samples, parts = Samples(), [torch.rand(2, 100) for _ in range(9)]
    assert not samples
    for part in parts:
        samples.add(part)
    assert samples and torch.equal(samples.take(), torch.cat(parts, dim=1))
    assert not samples, 'taken samples are forgotten'


def test_many_calls_take_bounded_memory_and_count_the_same() -> None:
    samples, calls, size = Samples(), 400, 2**13
    for call in range(calls):
        samples.add(torch.full((1, size), float(call)))
        assert sum(part.numel() for part in samples) <= 2**18
    counts = torch.bincount(samples.take()[0].long(), minlength=calls).float()
    # Each call has a binomial number of samples with the same mean.
    assert len(counts) == calls
    assert (counts - counts.mean()).abs().max() < 6 * counts.mean().sqrt()


def test_single_values_do_not_pile_up() -> None:
    samples = Samples()
    for call in range(1000):
        samples.add(torch.full((3, 1), float(call)))
    assert len(list(samples)) <= 65
    assert torch.equal(samples.take()[0], torch.arange(1000.0))


def test_random_numbers_of_the_training_are_left_alone() -> None:
    before = torch.get_rng_state()
    kept = []
    for _ in range(2):
        samples = Samples()
        for call in range(80):
            samples.add(torch.arange(8192.0)[None] + call)
        kept.append(deepcopy(samples).take())
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(torch.get_rng_state(), before)
