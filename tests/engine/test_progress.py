"""Progress: a few lines of a log, one line of a terminal."""
from __future__ import annotations

import pytest

from mmaqd.engine.progress import Progress


@pytest.mark.parametrize('num_batches, said', [(1, [1]), (3, [1, 2, 3]), (16, [4, 8, 12, 16]),
                                               (10, [3, 5, 8, 10])])
def test_a_log_gets_at_most_four_lines(capsys, num_batches, said):
    progress = Progress('Calibrating', num_batches)
    for _ in range(num_batches):
        progress.done(2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(',')[0] for line in lines
            ] == [f'Calibrating: {done} of {num_batches} batches' for done in said]
    assert str(progress) == f'{num_batches} batches ({2 * num_batches} images)'


def test_a_terminal_has_one_line_for_all(capsys, monkeypatch):
    progress = Progress('Calibrating', 3)
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    for _ in range(3):
        progress.done(2)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and said.count('\rCalibrating: ') == 3
