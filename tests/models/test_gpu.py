"""Whole detectors on a GPU: the numbers of the CPU, and mixed precision as its users train."""
from __future__ import annotations

from typing import Iterator

import pytest
import torch
from mmengine.optim import AmpOptimWrapper

from mmaqd.functional import liq
from mmaqd.quantizers import calibrate
from tests.helpers.detector import DETECTORS, build, build_calibrated, loss, make_batch, model_cfg

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
on_detectors = pytest.mark.parametrize('detector', DETECTORS)


@pytest.fixture(params=[True, False], ids=['one pass', 'operations'])
def kernels(request, monkeypatch) -> None:
    if not request.param:
        monkeypatch.setattr(liq, 'fits', lambda *_: False)


@pytest.fixture(autouse=True)
def exact_convs() -> Iterator[None]:
    """Convs in float32 rather than in TF32, whose rounding moves values to other levels."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@on_detectors
def test_loss_is_that_of_the_cpu(detector: str, kernels: None) -> None:
    batch = make_batch(size=128)
    expected = loss(build_calibrated(detector).train(), batch)
    found = loss(build_calibrated(detector).cuda().train(), batch)
    torch.testing.assert_close(found.cpu(), expected, rtol=0.01, atol=0)


@on_detectors
def test_calibration_starts_the_quantizers_as_on_the_cpu(detector: str) -> None:
    model = build(model_cfg(detector, 4)).cuda()
    assert calibrate(model, [make_batch()]) > 0
    expected = dict(build_calibrated(detector).named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith('interval'):
            torch.testing.assert_close(parameter.cpu(), expected[name], rtol=0.02, atol=0)


@on_detectors
@pytest.mark.parametrize('channels_last', [False, True], ids=['channels first', 'channels last'])
def test_amp_wrapper_trains_in_float16(detector: str, channels_last: bool, kernels: None) -> None:
    model = build_calibrated(detector).cuda().train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    # The scale at which mmengine starts overflows at first by design, and lowers it by steps.
    wrapper = AmpOptimWrapper(
        loss_scale=128.0, optimizer=torch.optim.SGD(model.parameters(), lr=1e-3))
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    batch, losses = make_batch(size=128), []
    for _ in range(3):
        losses.append(model.train_step(batch, wrapper)['loss'].item())
    assert losses[-1] < losses[0]
    moved = [name for name, each in model.named_parameters() if not each.equal(before[name])]
    assert len(moved) > 0.8 * len(before)  # not the statistics of levels without a box
    assert {each.dtype for each in model.parameters()} == {torch.float32}


@on_detectors
def test_one_pass_gives_the_gradients_of_the_operations(detector: str, monkeypatch) -> None:
    found = []
    for fits in (liq.fits, lambda *_: False):
        monkeypatch.setattr(liq, 'fits', fits)
        model = build_calibrated(detector).cuda().train()
        loss(model, make_batch(size=128)).backward()
        found.append({name: each.grad for name, each in model.named_parameters()})
    for name, expected in found[1].items():
        torch.testing.assert_close(
            found[0][name], expected, rtol=0, atol=1e-3 * expected.abs().max().item() + 1e-6)
