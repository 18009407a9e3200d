"""The Triton functions: on a GPU, and interpreted on the CPU, against the operations."""
from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType
from typing import Callable, Iterator

import pytest
import torch
from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, kernels, liq, triton_liq
from mmaqd.layers import QuantConv2d
from tests.helpers.detector import CHANNELS, build_calibrated

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
KERNELS = [LIQActivationKernel(bits) for bits in range(2, 9)] + [
    LIQWeightKernel(bits, normalize, center=center) for bits in range(2, 9)
    for normalize, center in ((False, True), (True, True), (True, False))
]
on_kernels = pytest.mark.parametrize('kernel', KERNELS, ids=str)
# One value, less than a program's block, more than one, and one that ends in the midst of a third.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (2, 8, 16, 32), (3, 5, 23, 29)]
on_shapes = pytest.mark.parametrize('shape', SHAPES, ids=str)
INTERVAL = 1.3


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Also the edges of the interval, ties between grid points, and what is not finite."""
    x = 1.5 * torch.randn(shape)
    special = torch.tensor([0.0, INTERVAL, -INTERVAL, INTERVAL / 2, float('nan')])
    x.view(-1)[:special.numel()] = special[:x.numel()]
    return x.to(dtype)


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    (quantized, grad, grad_interval), (wanted, wanted_grad, wanted_interval) = found, expected
    torch.testing.assert_close(quantized, wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(grad, wanted_grad, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(grad_interval, wanted_interval, rtol=1e-4, atol=1e-4, equal_nan=True)


def by_operations(kernel, x: Tensor, grad: Tensor, interval: Tensor) -> tuple[Tensor, ...]:
    """Output, gradient of the input and of the interval."""
    bound = kernels.ByOperations(kernel, kernel.terms(x, interval), whole=False)
    quantized = bound.fake_quantize(x)
    return quantized, *bound.gradients(grad.clone(), x, quantized)


@pytest.fixture(scope='module')
def interpreter() -> Iterator[ModuleType]:
    """The module again, with functions that Triton interprets on the CPU."""
    if torch.cuda.is_available():
        pytest.skip('the GPU runs the kernels themselves')
    pytest.importorskip('triton', reason='Triton is not installed')
    spec = importlib.util.spec_from_file_location('mmaqd.functional.interpreted',
                                                  triton_liq.__file__)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        patch.setitem(sys.modules, spec.name, module)
        compiled = take_triton_out()
        spec.loader.exec_module(module)
        yield module
        take_triton_out()
        sys.modules.update(compiled)


def take_triton_out() -> dict[str, ModuleType]:
    """The modules of Triton, which is imported anew then; its C++ part, which can't be, stays.

    Its own functions are interpreted where it is imported so.
    """
    names = [name for name in sys.modules if re.match(r'triton(\.(?!_C)|$)', name)]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def interpreted(interpreter, monkeypatch) -> None:
    """LIQ goes through that module."""
    monkeypatch.setattr(liq, 'fits', lambda *_: True)
    monkeypatch.setattr(liq, 'LIQOnGPU', interpreter.LIQOnGPU)


def by_one_pass(kernel, x: Tensor, grad: Tensor, interval: Tensor) -> tuple[Tensor, ...]:
    bound = kernel.bind(x, interval)
    assert type(bound).__name__ == 'LIQOnGPU'
    quantized = bound.fake_quantize(x)
    return quantized, *bound.gradients(grad.clone(), x, quantized)


@on_kernels
@on_shapes
def test_interpreted(interpreted, kernel, shape: tuple) -> None:
    x, grad, interval = values(shape), torch.randn(shape), torch.tensor(INTERVAL)
    if kernel.axis is None and getattr(kernel, 'normalize', False):
        x = x.nan_to_num()  # the mean of all would be NaN
    assert_same(by_one_pass(kernel, x, grad, interval), by_operations(kernel, x, grad, interval))


def test_interpreted_in_float16_and_channels_last(interpreted) -> None:
    for dtype, layout in ((torch.float16, torch.contiguous_format), (torch.float32,
                                                                     torch.channels_last)):
        x = values((2, 3, 5, 7), dtype).contiguous(memory_format=layout)
        grad, interval = torch.randn_like(x), torch.tensor(INTERVAL)
        kernel = LIQActivationKernel(3, gradient_factor=True)
        found = by_one_pass(kernel, x, grad, interval)
        assert_same(found, by_operations(kernel, x, grad, interval))
        assert found[0].stride() == found[1].stride() == x.stride()


def test_interpreted_gradient_that_lies_otherwise_in_memory(interpreted) -> None:
    x, interval = values((2, 3, 5, 7)), torch.tensor(INTERVAL)
    grad = torch.randn_like(x).contiguous(memory_format=torch.channels_last)
    kernel = LIQActivationKernel(3)
    assert_same(
        by_one_pass(kernel, x, grad, interval), by_operations(kernel, x, grad.contiguous(),
                                                              interval))


@pytest.mark.parametrize('interval', [0.0, -1.0, 1e-7, float('nan')])
def test_interpreted_interval_at_its_floor(interpreted, interval: float) -> None:
    x, grad = 1e-6 * torch.randn(50), torch.randn(50)
    kernel, interval = LIQActivationKernel(3), torch.tensor(interval)
    assert_same(by_one_pass(kernel, x, grad, interval), by_operations(kernel, x, grad, interval))


@needs_gpu
@on_kernels
@on_shapes
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu(kernel, shape: tuple, dtype: torch.dtype) -> None:
    x, grad = (each.nan_to_num().to('cuda', dtype) for each in (values(shape), torch.randn(shape)))
    interval = torch.tensor(INTERVAL, device='cuda')
    found = by_one_pass(kernel, x, grad, interval)
    assert_same(found, by_operations(kernel, x, grad, interval))
    again = kernel.forward(x, interval)
    assert torch.equal(again, found[0])


@needs_gpu
def test_scales_on_a_gpu_are_those_of_the_cpu() -> None:
    interval = torch.rand(1000) + 1e-3
    for kernel in KERNELS:
        assert torch.equal(kernel.scale(interval.cuda()).cpu(), kernel.scale(interval))


@needs_gpu
def test_a_gradient_in_half_precision_of_an_input_in_float32() -> None:
    x, interval = values((2, 3, 5, 7)).nan_to_num().cuda(), torch.tensor(INTERVAL, device='cuda')
    grad, kernel = torch.randn_like(x).half(), LIQActivationKernel(4)
    assert_same(
        by_one_pass(kernel, x, grad, interval), by_operations(kernel, x, grad.float(), interval))


@pytest.mark.parametrize(
    'x', [
        torch.ones(2, 3),
        torch.ones(2, 3, device='meta'),
    ], ids=['cpu', 'meta'])
def test_where_they_do_not_apply(x: Tensor) -> None:
    assert not triton_liq.fits(x, torch.ones(()))
    assert isinstance(LIQActivationKernel(4).bind(x, torch.ones(())), kernels.ByOperations)


def test_where_triton_does_not_work_the_operations_serve(monkeypatch) -> None:

    def fail(*_) -> None:
        raise RuntimeError('no compiler')

    monkeypatch.setattr(triton_liq.LIQOnGPU, 'fake_quantize', fail)
    triton_liq._works.cache_clear()
    with pytest.warns(UserWarning, match='(?s)Triton.*RuntimeError: no compiler.*goes on'):
        assert not triton_liq._works(torch.device('cpu'))
    triton_liq._works.cache_clear()


@needs_gpu
def test_where_they_do_not_apply_on_a_gpu() -> None:
    fits, interval = torch.ones(2, 3, device='cuda'), torch.ones((), device='cuda')
    assert triton_liq.fits(fits, interval)
    for other in (interval.bfloat16(), interval[None]):
        assert not triton_liq.fits(fits, other)
    for other in (fits.double(), fits.t(), fits[:0]):
        assert not triton_liq.fits(other, interval)
    per_channel = LIQWeightKernel(4, axis=0).bind(fits, torch.ones(2, device='cuda'))
    assert isinstance(per_channel, kernels.ByOperations)


@pytest.fixture
def launches(interpreted, interpreter, monkeypatch) -> list[tuple]:
    """What is launched: forward or backward, and the shape."""
    found = []

    def record(method: str) -> None:
        original = getattr(interpreter.LIQOnGPU, method)

        def recorded(self, *tensors: Tensor) -> Tensor:
            found.append((method, tensors[-1 if method == 'gradients' else 0].shape))
            return original(self, *tensors)

        monkeypatch.setattr(interpreter.LIQOnGPU, method, recorded)

    record('fake_quantize')
    record('gradients')
    return found


def make_conv() -> QuantConv2d:
    conv = QuantConv2d(
        3,
        4,
        3,
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4))
    for name, buffer in conv.named_buffers():
        if name.endswith('initialized'):
            buffer.fill_(True)
    return conv


def assert_same_by_operations(conv: QuantConv2d, run: Callable[[], Tensor]) -> None:
    """Outputs and gradients are those of the operations."""
    results = []
    for fits in (lambda *_: True, lambda *_: False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(liq, 'fits', fits)
            conv.zero_grad()
            out = run()
            out.square().sum().backward()
        results.append([out, *(parameter.grad for parameter in conv.parameters())])
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_conv_goes_through_them(launches) -> None:
    conv, x = make_conv(), torch.rand(2, 3, 6, 6)
    assert_same_by_operations(conv, lambda: conv(x))
    forward = [('fake_quantize', x.shape), ('fake_quantize', conv.weight.shape)]
    # The backward pass quantizes again.
    assert launches == 2 * forward + [('gradients', x.shape), ('gradients', conv.weight.shape)]


def test_a_quantizer_goes_through_them(launches) -> None:
    conv = make_conv()
    assert_same_by_operations(conv.weight_quantizer,
                              lambda: conv.weight_quantizer(conv.weight.detach()))
    assert [method for method, _ in launches] == ['fake_quantize', 'fake_quantize', 'gradients']


def test_the_shared_weights_of_a_head_go_through_them_once(launches) -> None:
    conv, levels = make_conv(), [torch.rand(1, 3, size, size) for size in (8, 6, 4)]

    def run() -> Tensor:
        with conv.quantize_weight_once():
            return sum(conv(level).sum() for level in levels)

    assert_same_by_operations(conv, run)
    of_weights = [method for method, shape in launches if shape == conv.weight.shape]
    assert of_weights == ['fake_quantize', 'fake_quantize', 'gradients']
    assert len(launches) == 3 + 3 * len(levels)


def test_all_convs_of_a_detectors_head_go_through_them(launches) -> None:
    with pytest.MonkeyPatch.context() as patch:  # the search for intervals would take long
        patch.setattr(liq, 'fits', lambda *_: False)
        head = build_calibrated().bbox_head
    features = [torch.rand(1, CHANNELS, size, size) for size in (8, 6, 4, 3, 2)]
    with torch.no_grad():
        head.train()(features)
    convs = [module for module in head.modules() if isinstance(module, QuantConv2d)]
    weights = [conv.weight.shape for conv in convs]
    inputs = [feature.shape for feature in features for _ in convs]
    expected = [('fake_quantize', shape) for shape in weights + inputs]
    assert sorted(launches) == sorted(expected)
