"""The differentiable fake quantization: dtypes, what is saved, what it refuses."""
from __future__ import annotations

import pytest
import torch

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, fake_quantize

KERNELS = [LIQActivationKernel(4), LIQWeightKernel(4), LIQWeightKernel(3, normalize=True)]
kernels = pytest.mark.parametrize('kernel', KERNELS, ids=['activation', 'weight', 'normalized'])


@kernels
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_computes_in_float32(kernel, dtype: torch.dtype) -> None:
    x = torch.randn(64).to(dtype).requires_grad_()
    upstream = torch.randn(64).to(dtype)
    v = torch.tensor(0.7, requires_grad=True)
    y = fake_quantize(x, kernel, v)
    grad_x, grad_v = torch.autograd.grad(y, (x, v), upstream)
    assert y.dtype == grad_x.dtype == dtype
    assert grad_v.dtype == torch.float32

    wide = x.detach().float()
    quantized = kernel.forward(wide, v.detach())
    expected_x, expected_v = kernel.backward(upstream.float(), wide, quantized, v.detach())
    assert torch.equal(y, quantized.to(dtype))
    assert torch.equal(grad_x, expected_x.to(dtype))
    assert torch.equal(grad_v, expected_v)


def test_interval_in_half_precision_gets_a_gradient_of_its_dtype() -> None:
    v = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    fake_quantize(torch.ones(3, dtype=torch.bfloat16), LIQActivationKernel(2), v).sum().backward()
    assert v.grad.dtype == torch.bfloat16
    assert v.grad == 3


@kernels
def test_saves_its_inputs_and_nothing_else(kernel) -> None:
    x, v = torch.randn(8, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fake_quantize(x, kernel, v)
    assert sorted(t.data_ptr() for t in saved) == sorted([x.data_ptr(), v.data_ptr()])


@kernels
def test_double_backward_is_an_error(kernel) -> None:
    x, v = torch.rand(8, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    out = fake_quantize(x, kernel, v).pow(2).sum()
    grad, = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


@pytest.mark.parametrize('wanted', ['x', 'v'])
def test_only_one_side_needs_a_gradient(wanted: str) -> None:
    leaves = dict(x=torch.rand(8), v=torch.tensor(0.7))
    leaves[wanted].requires_grad_()
    fake_quantize(leaves['x'], LIQActivationKernel(2), leaves['v']).sum().backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [wanted]


@pytest.mark.parametrize('kernel', KERNELS[:2], ids=['activation', 'weight'])
def test_empty_tensor(kernel) -> None:
    x = torch.empty(0, 4, requires_grad=True)
    v = torch.tensor(0.7, requires_grad=True)
    y = fake_quantize(x, kernel, v)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 4)
    assert v.grad == 0


def test_memory_format_is_kept() -> None:
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    y = fake_quantize(x, LIQActivationKernel(4), torch.tensor(0.7))
    assert y.is_contiguous(memory_format=torch.channels_last)
