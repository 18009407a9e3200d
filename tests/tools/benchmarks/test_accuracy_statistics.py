"""Differences, intervals and resampled APs against figures worked out by hand."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from accuracy_statistics import RESAMPLES, compare, compare_resampled, resample


def test_difference_is_paired_by_seed():
    difference = compare({0: 1.0, 1: 2.0, 2: 4.0, 7: 9.0}, {2: 2.5, 1: 1.0, 0: 0.5, 3: 0.0})
    assert difference.each == {0: 0.5, 1: 1.0, 2: 1.5}
    assert difference.mean == pytest.approx(1)
    # Student's t with two degrees of freedom: F(t) = (1 + t / sqrt(2 + t^2)) / 2.
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert difference.interval == pytest.approx(t * 0.5 / math.sqrt(3))


@pytest.mark.parametrize('row, other', [({
    0: 3.0
}, {
    0: 1.0
}), ({
    0: 40.1,
    1: 41.1
}, {
    0: 38.1,
    1: 39.1
})])
def test_one_seed_or_equal_differences_have_no_interval(row, other):
    difference = compare(row, other)
    assert difference.mean == pytest.approx(2) and difference.interval is None


def test_nothing_in_common():
    assert compare({0: 1.0}, {1: 1.0}) is None


@pytest.fixture
def annotations(tmp_path) -> str:
    """Ten images with a box each."""
    boxes = [
        dict(id=image, image_id=image, category_id=1, bbox=[0, 0, 10, 10], area=100, iscrowd=0)
        for image in range(1, 11)
    ]
    path = tmp_path / 'test.json'
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=image) for image in range(1, 11)],
                annotations=boxes,
                categories=[dict(id=1, name='box')])))
    return str(path)


def detect(images) -> list[dict]:
    return [dict(image_id=image, category_id=1, bbox=[0, 0, 10, 10], score=0.9) for image in images]


def test_draws_have_the_ap_of_their_images(annotations):
    assert resample(annotations, detect(range(1, 11))) == [100.0] * RESAMPLES
    assert resample(annotations, []) == [0.0] * RESAMPLES
    found = resample(annotations, detect([1, 2, 3, 4, 5]))
    draws = np.random.default_rng(0).integers(10, size=(RESAMPLES, 10))
    # Every detection is right, so AP is the recall, in the steps of COCO's 101 points.
    recalls = (draws < 5).mean(axis=1, keepdims=True)
    reached = (np.linspace(0, 1, 101) <= recalls) & (recalls > 0)
    assert found == pytest.approx(100 * reached.mean(axis=1), abs=0.01)


def test_two_runs_are_compared_draw_by_draw():
    ours, theirs = np.random.default_rng(1).normal(size=(2, 3, RESAMPLES))
    assert compare_resampled(theirs + 2, theirs) == pytest.approx((2, 2))
    low, high = compare_resampled(ours, theirs)
    assert -2 < low < 0 < high < 2  # 1.96 sqrt(2 / 3) = 1.6
