"""The pictures of the README are drawn from what is recorded, where it is recorded."""
from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope='module')
def tool() -> dict:
    return runpy.run_path(str(ROOT / 'tools' / 'dev' / 'front_page.py'))


def test_every_model_has_three_seeds(tool):
    recorded = tool['recorded_ap']()
    assert list(recorded) == ['float', '4 bits', '3 bits', '2 bits']
    assert all(len(values) == 3 and 0 < min(values) < 100 for values in recorded.values())


def test_latencies_are_those_of_the_page(tool):
    page = (ROOT / 'docs' / 'results.md').read_text()
    milliseconds = [f'{value:.0f}' for value in tool['recorded_latencies']().values()]
    assert f'| RetinaNet-R18, ms | {" | ".join(milliseconds)} |' in page


def test_badges_are_those_that_are_drawn(tool, tmp_path):
    tool['draw_badges'](tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = ROOT / 'docs' / 'images' / 'badges'
    assert drawn == {path.name: path.read_text() for path in committed.iterdir()}
    readme = (ROOT / 'README.md').read_text()
    assert all(f'(docs/images/badges/{name})' in readme for name in drawn)
