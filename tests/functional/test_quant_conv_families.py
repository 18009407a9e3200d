"""The fused conv against the composed one, for the kernels of every family."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmaqd.functional import ConvGeometry, fake_quantize, quant_conv2d
from tests.functional.families import Case, activations, weights

GEOMETRY = ConvGeometry(stride=(2, 1), padding=(1, 1))
INPUTS = {**activations(3), 'float': None}
WEIGHTS = {**weights(2), 'float': None}


def parameters_of(case: Case | None, **options) -> tuple[torch.Tensor, ...]:
    return case.parameters(**options) if case else ()


@pytest.mark.parametrize('inputs', INPUTS.values(), ids=INPUTS.keys())
@pytest.mark.parametrize('weight', WEIGHTS.values(), ids=WEIGHTS.keys())
def test_fused_equals_composed(inputs, weight, device: torch.device) -> None:
    options = dict(dtype=torch.float64, device=device)
    of_input, of_weight = parameters_of(inputs, **options), parameters_of(weight, **options)
    x, w, bias = (torch.randn(*shape, **options) for shape in ((2, 4, 7, 6), (8, 4, 3, 3), (8, )))
    leaves = [leaf.requires_grad_() for leaf in (x, w, bias, *of_input, *of_weight)]
    found = quant_conv2d(
        x,
        w,
        bias,
        GEOMETRY,
        input_kernel=inputs and inputs.kernel,
        input_parameters=of_input,
        weight_kernel=weight and weight.kernel,
        weight_parameters=of_weight)
    expected = F.conv2d(
        fake_quantize(x, inputs.kernel, *of_input) if inputs else x,
        fake_quantize(w, weight.kernel, *of_weight) if weight else w, bias, GEOMETRY.stride,
        GEOMETRY.padding)
    assert torch.equal(found, expected)
    upstream = torch.randn_like(found)
    for one, other in zip(*(torch.autograd.grad(out, leaves, upstream)
                            for out in (found, expected))):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('weight', weights(4).values(), ids=weights(4).keys())
@pytest.mark.parametrize('inputs', activations(4).values(), ids=activations(4).keys())
def test_bfloat16_autocast_is_close_to_float32(inputs, weight, device: torch.device) -> None:
    of_input, of_weight = (side.parameters(device=device) for side in (inputs, weight))
    x, w = (torch.randn(*shape).to(device) for shape in ((2, 4, 7, 6), (8, 4, 3, 3)))
    leaves = [leaf.requires_grad_() for leaf in (x, w, *of_input, *of_weight)]
    results = []
    for enabled in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            out = quant_conv2d(
                x,
                w,
                None,
                GEOMETRY,
                input_kernel=inputs.kernel,
                input_parameters=of_input,
                weight_kernel=weight.kernel,
                weight_parameters=of_weight)
        grads = torch.autograd.grad(out.float().pow(2).sum(), leaves)
        assert [grad.dtype for grad in grads] == [torch.float32] * len(leaves)
        results.append((out.float(), *grads))
    for exact, low in list(zip(*results))[:3]:  # those of the parameters are sums that cancel
        assert (exact - low).norm() < 0.05 * exact.norm()
