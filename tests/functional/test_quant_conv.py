"""The fused conv against fake quantization and conv2d, one after the other in autograd."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaqd.functional import (ConvGeometry, LIQActivationKernel, LIQWeightKernel, fake_quantize,
                              quant_conv2d)

INPUT, WEIGHT = LIQActivationKernel(4), LIQWeightKernel(3, normalize=True)
GEOMETRIES = {
    'plain': ConvGeometry(),
    'padded': ConvGeometry(padding=(1, 2)),
    'strided': ConvGeometry(stride=(2, 1), padding=(1, 1)),
    'dilated': ConvGeometry(padding=(2, 2), dilation=(2, 2)),
    'grouped': ConvGeometry(padding=(1, 1), groups=2),
    'depthwise': ConvGeometry(padding=(1, 1), groups=4),
}


class Operands:
    """Leaves of a conv: 4 channels in, 8 out, kernel 3x3."""

    def __init__(self,
                 groups: int = 1,
                 bias: bool = True,
                 batch: int = 2,
                 dtype: torch.dtype = torch.float64,
                 device: Any = 'cpu',
                 channels: int | None = None) -> None:
        options = dict(dtype=dtype, device=device)
        self.x = torch.randn(batch, 4, 9, 8, **options)
        self.weight = 0.1 + torch.randn(8, 4 // groups, 3, 3, **options)
        self.bias = torch.randn(8, **options) if bias else None
        self.of_input = torch.tensor(1.1, **options)
        shape = () if channels is None else (channels, )
        self.of_weight = torch.full(shape, 0.9, **options)

    def leaves(self) -> list[Tensor]:
        """All operands but a bias that is None; each asks for its gradient."""
        named = (self.x, self.weight, self.bias, self.of_input, self.of_weight)
        return [leaf.requires_grad_() for leaf in named if leaf is not None]


def fused(o: Operands,
          geometry: ConvGeometry,
          input_kernel: Any = INPUT,
          weight_kernel: Any = WEIGHT,
          **options: Any) -> Tensor:
    return quant_conv2d(
        o.x,
        o.weight,
        o.bias,
        geometry,
        input_kernel=input_kernel,
        input_parameters=(o.of_input, ) if input_kernel else (),
        weight_kernel=weight_kernel,
        weight_parameters=(o.of_weight, ) if weight_kernel else (),
        **options)


def composed(o: Operands,
             geometry: ConvGeometry,
             input_kernel: Any = INPUT,
             weight_kernel: Any = WEIGHT) -> Tensor:
    x = fake_quantize(o.x, input_kernel, o.of_input) if input_kernel else o.x
    weight = fake_quantize(o.weight, weight_kernel, o.of_weight) if weight_kernel else o.weight
    return F.conv2d(x, weight, o.bias, geometry.stride, geometry.padding, geometry.dilation,
                    geometry.groups)


def assert_same(o: Operands, geometry: ConvGeometry, *kernels: Any) -> None:
    """The same output to the bit, the same gradients."""
    leaves = [leaf for leaf in o.leaves() if leaf.requires_grad]
    found, expected = fused(o, geometry, *kernels), composed(o, geometry, *kernels)
    assert torch.equal(found, expected)
    upstream = torch.randn_like(found)
    gradients = [
        torch.autograd.grad(out, leaves, upstream, allow_unused=True) for out in (found, expected)
    ]
    for one, other in zip(*gradients):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no_bias'])
def test_every_geometry(geometry: ConvGeometry, bias: bool, device: torch.device) -> None:
    assert_same(Operands(geometry.groups, bias, device=device), geometry)


@pytest.mark.parametrize(
    'input_kernel', [INPUT, LIQActivationKernel(2, gradient_factor=True), None],
    ids=['input4', 'input2_factor', 'input_float'])
@pytest.mark.parametrize(
    'weight_kernel',
    [WEIGHT, LIQWeightKernel(8), LIQWeightKernel(2, axis=0), None],
    ids=['normalized3', 'weight8', 'per_channel2', 'weight_float'])
def test_every_pair_of_kernels(input_kernel, weight_kernel) -> None:
    channels = 8 if weight_kernel and weight_kernel.axis == 0 else None
    assert_same(Operands(channels=channels), ConvGeometry(), input_kernel, weight_kernel)


@pytest.mark.parametrize(
    'frozen', [('x', ), ('weight', ), ('bias', ), ('of_input', ), ('of_weight', ),
               ('x', 'of_input'), ('weight', 'of_weight'), ('weight', 'bias'),
               ('x', 'weight', 'bias', 'of_input'), ('x', 'weight', 'of_input', 'of_weight')],
    ids='+'.join)
def test_gradients_only_where_they_are_asked_for(frozen: tuple[str, ...]) -> None:
    o = Operands()
    leaves = o.leaves()
    for name in frozen:
        getattr(o, name).requires_grad_(False)
    fused(o, ConvGeometry()).pow(2).sum().backward()
    found = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    composed(o, ConvGeometry()).pow(2).sum().backward()
    for leaf, grad in zip(leaves, found):
        assert (grad is None) == (leaf.grad is None) == (not leaf.requires_grad)
        if grad is not None:
            torch.testing.assert_close(grad, leaf.grad, rtol=1e-10, atol=1e-10)


def test_channels_last(device: torch.device) -> None:
    o = Operands(device=device)
    o.x = o.x.contiguous(memory_format=torch.channels_last)
    o.weight = o.weight.contiguous(memory_format=torch.channels_last)
    # On a GPU convs in float64 have their channels first whatever they get.
    assert fused(o, ConvGeometry()).stride() == composed(o, ConvGeometry()).stride()
    assert_same(o, ConvGeometry(padding=(1, 1)))


def test_view_that_is_not_contiguous() -> None:
    o = Operands()
    o.x = torch.randn(2, 9, 8, 4, dtype=torch.float64).permute(0, 3, 1, 2)
    assert_same(o, ConvGeometry(padding=(1, 1)))


def test_empty_batch() -> None:
    o = Operands(batch=0)
    assert_same(o, ConvGeometry(padding=(1, 1)))
    gradients = torch.autograd.grad(fused(o, ConvGeometry()).sum(), o.leaves())
    assert not any(grad.any() for grad in gradients)


def test_without_gradients_the_numbers_are_the_same() -> None:
    o = Operands()
    expected = fused(o, ConvGeometry())
    with torch.no_grad():
        found = fused(o, ConvGeometry())
    assert torch.equal(found, expected)
    assert not found.requires_grad


@pytest.mark.filterwarnings('ignore:.*torch.jit.trace:DeprecationWarning')
def test_a_trace_sees_the_operators_of_the_conv() -> None:
    o = Operands(dtype=torch.float32)

    def run(x: Tensor) -> Tensor:
        o.x = x
        return fused(o, ConvGeometry())

    traced = torch.jit.trace(run, o.x)
    operators = {node.kind() for node in traced.graph.nodes()}
    assert {'aten::_convolution', 'aten::round'} <= operators
    assert torch.equal(traced(o.x), run(o.x))


@pytest.mark.parametrize(('input_kernel', 'weight_kernel'), [(INPUT, WEIGHT), (None, WEIGHT),
                                                             (INPUT, None)],
                         ids=['both', 'weight_only', 'input_only'])
def test_saves_its_operands_and_nothing_else(input_kernel, weight_kernel) -> None:
    o = Operands()
    known = {leaf.data_ptr() for leaf in o.leaves()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = fused(o, ConvGeometry(padding=(1, 1)), input_kernel, weight_kernel)
    assert saved
    assert {tensor.data_ptr() for tensor in saved} <= known
    assert not any(isinstance(kept, Tensor) for kept in vars(out.grad_fn).values())


def test_double_backward_is_an_error() -> None:
    o = Operands()
    o.leaves()
    grad, = torch.autograd.grad(fused(o, ConvGeometry()).pow(2).sum(), o.x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_an_operand_changed_before_backward_is_an_error() -> None:
    o = Operands()
    o.leaves()
    loss = fused(o, ConvGeometry()).sum()
    with torch.no_grad():
        o.weight.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('shift', [0.0, 5.0], ids=['centred', 'shifted'])
def test_padding_is_with_zeros_after_quantization(shift: float) -> None:
    """Unsigned codes of a padded pixel are 0, whatever the interval is."""
    o = Operands(bias=False)
    o.x = o.x.abs() + shift
    padded = fused(o, ConvGeometry(padding=(1, 1)))
    inner = fused(o, ConvGeometry())
    torch.testing.assert_close(padded[:, :, 1:-1, 1:-1], inner)
