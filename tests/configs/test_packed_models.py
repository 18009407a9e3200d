"""The packed models in the repository load in their configs and detect in the image beside them."""
from __future__ import annotations

from pathlib import Path

import pytest
from mmdet.apis import inference_detector, init_detector

pytest.importorskip('safetensors')
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob('configs/*/packed/*.safetensors'))
WBC = 1


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_it_is_small_and_detects(path):
    assert path.stat().st_size < 10**6
    model = init_detector(str(path.parents[1] / f'{path.stem}.py'), str(path), device='cpu')
    assert list(model.dataset_meta['classes']) == ['RBC', 'WBC', 'Platelets']
    image, = path.parent.glob('*.jpg')
    found = inference_detector(model, str(image)).pred_instances
    assert found.scores[found.labels == WBC].max() > 0.8


def test_there_are_two():
    assert len(FILES) == 2
