"""The quantizer that additions are computed in."""
from __future__ import annotations

import pytest
import torch

from mmaqd.quantizers import StreamQuantizer, UninitializedIntervalError


def ready(bit_width: int = 8, step_size: float = 0.5) -> StreamQuantizer:
    """A stream with a step size."""
    stream = StreamQuantizer(bit_width)
    stream.step_size.data.fill_(step_size)
    stream.initialized.fill_(True)
    return stream


@pytest.mark.parametrize('bits', [4, 5, 8])
def test_the_codes_are_signed_or_not(bits: int) -> None:
    x = torch.arange(-300, 300, 0.25)
    stream, n = ready(bits), 2**(bits - 1)
    codes = (stream(x) / 0.5).unique()
    assert codes.tolist() == list(range(-n, n))
    codes = (stream(x, nonnegative=True) / 0.5).unique()
    assert codes.tolist() == list(range(2 * n))


def test_the_step_starts_where_nothing_is_clipped() -> None:
    stream = StreamQuantizer(8)
    stream.take_samples(torch.tensor([0.0, 51.0]), nonnegative=True)  # 51 / 255
    stream.observe(torch.tensor([-64.0, 10.0]))  # 64 / 128
    stream.observe(torch.tensor([-1.0, 12.7]))  # 12.7 / 127
    stream.initialize()
    assert stream.step_size.item() == pytest.approx(0.5) and bool(stream.initialized)


def test_it_needs_data_first() -> None:
    with pytest.raises(UninitializedIntervalError, match='StreamQuantizer'):
        StreamQuantizer(8)(torch.ones(3))
    with pytest.raises(ValueError, match='NaN or infinity'):
        StreamQuantizer(8).observe(torch.tensor([torch.nan]))


def test_only_zeros_give_a_step() -> None:
    stream = StreamQuantizer(8)
    stream.observe(torch.zeros(4))
    stream.initialize()
    assert stream.step_size.item() > 0 and not stream(torch.zeros(4)).any()


def test_the_gradient_is_that_of_lsq() -> None:
    stream, x = ready(), torch.tensor([[0.3, 100.0, -100.0]], requires_grad=True)
    stream(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]
    factor = (3 * 127)**-0.5
    assert stream.step_size.grad.item() == pytest.approx((1 - 0.6 + 127 - 128) * factor, rel=1e-5)


@pytest.mark.parametrize('bits', [3, 9, 8.0])
def test_bits_are_checked(bits: float) -> None:
    with pytest.raises((ValueError, TypeError), match='StreamQuantizer'):
        StreamQuantizer(bits)


def test_it_is_one_operator_when_exported() -> None:
    stream, x = ready(), torch.randn(2, 3, 4, 4) * 50
    with torch.no_grad():
        program = torch.export.export(stream.eval(), (x, ))
    targets = [str(node.target) for node in program.graph.nodes if node.op == 'call_function']
    assert targets == ['mmaqd.fake_quantize.default']
    assert torch.equal(program.module()(x), stream(x))
