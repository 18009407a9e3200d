"""Paired differences over seeds and, for runs that recorded them, over resampled test images."""
from __future__ import annotations

import io
import math
from contextlib import redirect_stdout
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Mapping, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import t as student

RESAMPLES = 200


@dataclass(frozen=True)
class Difference:
    """How one row differs from another.

    Attributes:
        each: row - other by seed, for the seeds that both have.
        interval: Half of the 95 % t interval around the mean. None for one seed, and where all
            seeds differ alike, as AP rounded to 0.1 can.
    """

    each: dict[int, float]
    interval: float | None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.each.values())


def compare(row: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Difference over the seeds that both have; None if there is no such seed."""
    each = {seed: row[seed] - other[seed] for seed in sorted(row) if seed in other}
    if not each:
        return None
    deviation = stdev(each.values()) if len(each) > 1 else 0.0
    if deviation < 1e-9:
        return Difference(each, None)
    return Difference(each, student.ppf(0.975, len(each) - 1) * deviation / math.sqrt(len(each)))


def resample(annotations: str, detections: list[dict[str, Any]]) -> list[float]:
    """AP in percent on :data:`RESAMPLES` draws of the test images, with replacement.

    The draws are the same for every run on the same images, so that two runs can be compared draw
    by draw. Images keep their matches: only the accumulation is done again.

    Args:
        annotations: COCO file of the test images.
        detections: What ``CocoMetric`` writes with ``outfile_prefix``.
    """
    if not detections:
        return [0.0] * RESAMPLES
    with redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluation.params.areaRng, evaluation.params.maxDets = [[0, 1e10]], [100]
        evaluation.evaluate()
        images = len(evaluation.params.imgIds)
        # By category, area and image.
        matches = np.array(evaluation.evalImgs, dtype=object).reshape(-1, images)
        draws = np.random.default_rng(0).integers(images, size=(RESAMPLES, images))
        return [_ap(evaluation, matches[:, draw]) for draw in draws]


def compare_resampled(row: Sequence[Sequence[float]],
                      other: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of row - other over the test images, the trained models as they are.

    Args:
        row: What :func:`resample` gave for each seed.
        other: Likewise, for the same seeds.
    """
    differences = np.mean(np.asarray(row) - np.asarray(other), axis=0)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def _ap(evaluation: COCOeval, matches: np.ndarray) -> float:
    evaluation.evalImgs = list(matches.ravel())
    evaluation.accumulate()
    precision = evaluation.eval['precision']
    found = precision[precision > -1]
    return round(100 * float(found.mean()), 2) if found.size else 0.0
