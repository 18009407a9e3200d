"""The fused conv in half precision and under autocast."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mmaqd.functional import ConvGeometry
from mmaqd.functional.quant_conv import _conv_dtype
from tests.functional.test_quant_conv import Operands, composed, fused

GEOMETRY = ConvGeometry(padding=(1, 1))


def run(o: Operands, function=fused) -> list[torch.Tensor]:
    """Output and gradients of all leaves."""
    leaves = o.leaves()
    out = function(o, GEOMETRY)
    return [out, *torch.autograd.grad(out.float().pow(2).sum(), leaves)]


def test_autocast_runs_the_conv_in_bfloat16(device: torch.device) -> None:
    o = Operands(dtype=torch.float32, device=device)
    expected = run(o)
    with torch.autocast(device.type, torch.bfloat16):
        found = run(o)
    assert found[0].dtype == torch.bfloat16
    assert [part.dtype for part in found[1:]] == [torch.float32] * 5
    for one, other in zip(found, expected):
        difference = (one.float() - other).norm() / other.norm()
        assert difference < 0.02


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_equals_the_composition_under_autocast(dtype: torch.dtype,
                                                        device: torch.device) -> None:
    o = Operands(dtype=torch.float32, device=device)
    with torch.autocast(device.type, dtype):
        found, expected = run(o), run(o, composed)
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:]):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * other.abs().max().item())


def test_input_in_half_precision_is_quantized_in_float32(device: torch.device) -> None:
    o = Operands(dtype=torch.float32, device=device)
    half = o.x.bfloat16()
    o.x = half.float()
    expected = fused(o, GEOMETRY)
    o.x = half
    assert torch.equal(fused(o, GEOMETRY), expected)


def test_model_in_bfloat16(device: torch.device) -> None:
    o = Operands(dtype=torch.bfloat16, device=device)
    found, expected = run(o), run(o, composed)
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found, expected):
        assert one.dtype == torch.bfloat16
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * other.abs().max().item())


@pytest.mark.filterwarnings('ignore:.*deprecated:DeprecationWarning')
@pytest.mark.parametrize('enabled', [True, False], ids=['autocast', 'no_autocast'])
def test_autocast_is_seen_on_torch_before_2_4(enabled: bool, monkeypatch) -> None:
    o = Operands(dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
        monkeypatch.delattr(torch, 'get_autocast_dtype')
        out = fused(o, GEOMETRY)
        monkeypatch.undo()
    assert out.dtype == (torch.bfloat16 if enabled else torch.float32)


def test_autocast_of_a_gpu_is_asked_for_on_torch_before_2_4(monkeypatch) -> None:
    on_gpu = SimpleNamespace(device=SimpleNamespace(type='cuda'))
    monkeypatch.delattr(torch, 'get_autocast_dtype')
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda: True)
    monkeypatch.setattr(torch, 'get_autocast_gpu_dtype', lambda: torch.float16)
    assert _conv_dtype(on_gpu, torch.ones(1)) == torch.float16


def test_meta_tensors_have_shapes() -> None:
    o = Operands(dtype=torch.float32, device='meta')
    assert fused(o, GEOMETRY).shape == (2, 8, 9, 8)
