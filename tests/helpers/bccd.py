"""Where the BCCD data set lies, for tests on real images."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

BCCD = Path(
    os.environ.get('MMAQD_BCCD')
    or Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'bccd')
needs_bccd = pytest.mark.skipif(
    not BCCD.is_dir(),
    reason='needs the BCCD data set: name its folder in MMAQD_BCCD, or put it into '
    '../shared/data/bccd beside the checkout')
