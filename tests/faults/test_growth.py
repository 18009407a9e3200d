"""A run of many iterations holds no more at its end than when it was warm."""
from __future__ import annotations

import sys

import pytest

from .growth import Held, predict, train

WARM = 3  # tenths
ITERATIONS = 200


def assert_steady(records: list[Held]) -> None:
    warm, last = records[WARM], records[-1]
    assert (last.threads, last.files) == (warm.threads, warm.files)
    # A batch is 0.1 MiB and the model 1 MiB: what each iteration kept would be many times as much.
    assert last.megabytes - warm.megabytes < 15


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_training_and_prediction_do_not_grow(tmp_path) -> None:
    runner, records = train(tmp_path, ITERATIONS)
    assert len(records) == 10
    assert_steady(records)
    assert_steady(predict(runner, ITERATIONS))
    assert len(list((tmp_path / 'work').glob('iter_*.pth'))) == 1
