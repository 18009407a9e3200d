"""The operator that torch.export sees in place of a quantized conv."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import (ConvGeometry, DoReFaActivationKernel, DoReFaWeightKernel,
                              LIQActivationKernel, LIQWeightKernel, LSQActivationKernel,
                              LSQPlusActivationKernel, LSQWeightKernel, PACTActivationKernel,
                              quant_conv2d)
from mmaqd.functional.operators import kernel_from_text, kernel_to_text

KERNELS = [
    DoReFaActivationKernel(3, 2.5),
    DoReFaWeightKernel(4),
    LIQActivationKernel(2, True),
    LIQWeightKernel(4, normalize=True, axis=0, center=False),
    LSQActivationKernel(8),
    LSQPlusActivationKernel(5),
    LSQWeightKernel(3, axis=0),
    PACTActivationKernel(4), None
]


@pytest.mark.parametrize('kernel', KERNELS, ids=str)
def test_a_kernel_comes_back_from_its_text(kernel: object) -> None:
    assert kernel_from_text(kernel_to_text(kernel)) == kernel


@pytest.mark.parametrize('text', [
    'Unknown(bit_width=4)', 'LIQActivationKernel(', 'print("hi")', 'LIQActivationKernel(bits=4)',
    '__import__("os").system("true")', 'LIQActivationKernel(bit_width=open("x"))', '4'
])  # yapf: disable
def test_another_text_is_refused_and_not_run(text: str) -> None:
    with pytest.raises(ValueError, match='is no quantization; known are DoReFaActivationKernel'):
        kernel_from_text(text)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('biased', [True, False])
def test_it_computes_what_the_function_does(groups: int, biased: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.rand(2, 4, 9, 7), torch.randn(6, 4 // groups, 3, 3)
    bias = torch.randn(6) if biased else None
    interval, intervals = torch.tensor(0.8), torch.rand(6) + 0.5
    geometry = ConvGeometry((2, 1), (1, 2), (1, 2), groups)
    inputs, weights = LIQActivationKernel(4), LIQWeightKernel(3, axis=0)
    with torch.no_grad():
        expected = quant_conv2d(
            x,
            weight,
            bias,
            geometry,
            input_kernel=inputs,
            input_parameters=(interval, ),
            weight_kernel=weights,
            weight_parameters=(intervals, ))
    arguments = (x, weight, bias, [interval], [intervals], kernel_to_text(inputs),
                 kernel_to_text(weights), [2, 1], [1, 2], [1, 2], groups)
    found = torch.ops.mmaqd.quant_conv2d(*arguments)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    torch.library.opcheck(torch.ops.mmaqd.quant_conv2d.default, arguments)
