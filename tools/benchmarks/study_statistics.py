"""Means, deviations and paired differences over seeds."""
from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Mapping, Optional

from scipy.stats import ttest_rel


@dataclass(frozen=True)
class Summary:
    """A figure over seeds.

    Attributes:
        mean: Mean over the seeds.
        std: Standard deviation of a sample (n - 1), None for one seed.
        seeds: The seeds, ascending.
    """

    mean: float
    std: Optional[float]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """How a row differs from another, paired by seed.

    Attributes:
        mean: Mean of row - other over the seeds that both have.
        p: Two-sided p of the paired t-test, None for one seed or for differences without spread.
        seeds: The seeds that both have, ascending.
    """

    mean: float
    p: Optional[float]
    seeds: tuple[int, ...]


def summarize(values: Mapping[int, float]) -> Optional[Summary]:
    """Mean and standard deviation of values by seed; None of no values."""
    if not values:
        return None
    seeds = tuple(sorted(values))
    return Summary(
        fmean(values.values()),
        stdev(values.values()) if len(seeds) > 1 else None, seeds)


def compare(values: Mapping[int, float], others: Mapping[int, float]) -> Optional[Difference]:
    """Difference over the seeds that both have; None if there is no such seed."""
    seeds = tuple(sorted(set(values) & set(others)))
    if not seeds:
        return None
    pairs = [(values[seed], others[seed]) for seed in seeds]
    differences = [ours - theirs for ours, theirs in pairs]
    p = None
    if len(seeds) > 1 and not math.isclose(stdev(differences), 0, abs_tol=1e-9):
        p = float(ttest_rel(*zip(*pairs)).pvalue)
    return Difference(fmean(differences), p, seeds)
