"""Every file of code stays short enough to be read in one go."""
from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for folder in ('mmaqd', 'tools', 'tests', 'configs') for path in (ROOT / folder).rglob('*')
    if path.suffix in ('.py', '.sh') and '.mim' not in path.parts)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400
