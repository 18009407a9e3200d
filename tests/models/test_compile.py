"""torch.compile on whole detectors: no graph break in code of ours."""
from __future__ import annotations

import pytest
import torch

from tests.helpers.detector import DETECTORS, build_calibrated, make_batch


@pytest.mark.slow
@pytest.mark.parametrize('detector', DETECTORS)
def test_no_graph_break_and_the_same_numbers(detector: str) -> None:
    model = build_calibrated(detector).train()
    images = model.data_preprocessor(make_batch(), training=True)['inputs']
    expected = model(images, mode='tensor')
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    for found, wanted in zip(compiled(images, mode='tensor'), expected):
        for pair in zip(found, wanted):
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)
