"""The code in docs/deployment.md does what it says."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmaqd.export import runtime
from tests.helpers.engines import need
from tests.helpers.exported import BOXES, LABELS, exported_file, recipe

FOUND = 3  # used rows of BOXES


def test_code_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need('openvino')
    page = Path(__file__).resolve().parents[2] / 'docs' / 'deployment.md'
    blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
    assert len(blocks) == 3
    meta = recipe(size=[480, 640], resize={'scale': [640, 480], 'keep_ratio': True})
    exported_file(tmp_path / 'model.onnx', meta)
    (tmp_path / 'photo.jpg').write_bytes(
        cv2.imencode('.jpg', np.full((60, 80, 3), 90, np.uint8))[1].tobytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'runtime', runtime)
    for block in blocks:
        found: dict[str, Any] = {}
        exec(block, found)
        if 'dets' in found:
            np.testing.assert_array_equal(found['dets'][0, :, :4], BOXES)
            np.testing.assert_array_equal(found['labels'][0], LABELS)
        else:
            np.testing.assert_array_equal(found['result']['boxes'], BOXES[:FOUND] / 8)
    assert (tmp_path / 'found.jpg').stat().st_size
