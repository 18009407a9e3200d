"""QuantConv2d under what a training run does to it: checkpointing, autocast, compilation."""
from __future__ import annotations

from typing import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmaqd.layers import QuantConv2d

FAMILIES = {
    name:
    dict(
        weight_quantizer=dict(type=f'mmaqd.{weight}WeightQuantizer', bit_width=3),
        input_quantizer=dict(type=f'mmaqd.{inputs}ActivationQuantizer', bit_width=3))
    for name, weight, inputs in (('LIQ', 'LIQ', 'LIQ'), ('LSQ', 'LSQ', 'LSQ'), ('LSQ+', 'LSQPlus',
                                                                                'LSQPlus'),
                                 ('PACT', 'DoReFa', 'PACT'), ('DoReFa', 'DoReFa', 'DoReFa'))
}
families = pytest.mark.parametrize('quantizers', FAMILIES.values(), ids=FAMILIES.keys())


def make_block(quantizers: dict) -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(
        QuantConv2d(3, 4, 3, padding=1, **quantizers), nn.BatchNorm2d(4), nn.ReLU(),
        QuantConv2d(4, 4, 3, **quantizers))
    for name, buffer in block.named_buffers():
        if name.endswith('initialized'):
            buffer.fill_(True)
    return block


def loss_and_gradients(block: nn.Module, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    block.zero_grad()
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    loss = run(x.to(next(block.parameters()).device)).float().square().mean()
    loss.backward()
    return [loss, *(parameter.grad for parameter in block.parameters())]


@families
@pytest.mark.parametrize('reentrant', [False, True], ids=['plain', 'reentrant'])
def test_activation_checkpointing_changes_no_number(quantizers, reentrant: bool,
                                                    device: torch.device) -> None:
    block = make_block(quantizers).to(device)
    expected = loss_and_gradients(block, block)
    found = loss_and_gradients(
        block, lambda x: checkpoint(block, x.requires_grad_(), use_reentrant=reentrant))
    assert all(torch.equal(*pair) for pair in zip(found, expected))


@families
def test_compiles_without_a_graph_break(quantizers, device: torch.device) -> None:
    block = make_block(quantizers).to(device)
    expected = loss_and_gradients(block, block)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    for found, wanted in zip(loss_and_gradients(block, compiled), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@families
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_leaves_parameters_and_their_gradients_in_float32(quantizers, dtype: torch.dtype,
                                                                   device: torch.device) -> None:
    block = make_block(quantizers).to(device)

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype):
            return block(x)

    found = loss_and_gradients(block, run)
    assert [value.dtype for value in found] == [torch.float32] * len(found)
    exact = loss_and_gradients(block, block)
    torch.testing.assert_close(found[0], exact[0], rtol=0.05, atol=0)


@families
def test_frozen_weights_stay_and_their_quantizer_learns(quantizers) -> None:
    block = make_block(quantizers)
    expected = loss_and_gradients(block, block)
    frozen = [module.weight for module in block if isinstance(module, QuantConv2d)]
    for weight in frozen:
        weight.requires_grad_(False).grad = None
    found = loss_and_gradients(block, block)
    for parameter, gradient, wanted in zip(block.parameters(), found[1:], expected[1:]):
        if any(parameter is weight for weight in frozen):
            assert gradient is None
        else:
            assert torch.equal(gradient, wanted)


@families
def test_double_backward_is_refused(quantizers) -> None:
    block = make_block(quantizers)
    x = torch.rand(1, 3, 6, 6, requires_grad=True)
    gradient, = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()
