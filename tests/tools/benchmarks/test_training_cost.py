"""What the cost of training is measured on: the same detector, its convs in several ways."""
from __future__ import annotations

from argparse import Namespace

import cost_profile
import pytest
import torch
from cost_variants import VARIANTS, ComposedConv2d, TorchLSQConv2d
from training_cost import Trainee, plot, table

from mmaqd import config_path
from mmaqd.functional import kernels_are_compiled
from mmaqd.layers import QuantConv2d

STEM = 'bccd/retinanet_r18-c16_fpn_mlbn'
CONV_CLASSES = {
    'mmaqd': QuantConv2d,
    'mmaqd, compiled kernels': QuantConv2d,
    'mmaqd, compiled kernels, channels last': QuantConv2d,
    'plain composition': ComposedConv2d
}
CONV_CLASSES['torch learnable fake quantization'] = TorchLSQConv2d


@pytest.fixture
def args() -> Namespace:
    return Namespace(
        float_config=config_path(f'{STEM}_1xb8-12e_bccd.py'),
        low_bit_config=config_path(f'{STEM}-w4a4_1xb8-6e_bccd.py'),
        size=(64, 64),
        batch_size=2,
        device='cpu',
        autocast='none')


def count_convs(trainee: Trainee, conv_class: type) -> int:
    return sum(type(module) is conv_class for module in trainee.model.modules())


@pytest.mark.slow
@pytest.mark.parametrize('name', CONV_CLASSES)
def test_every_conv_is_of_the_variant_and_learns(args, name: str) -> None:
    trainee = Trainee(args, name)
    assert count_convs(trainee,
                       CONV_CLASSES[name]) == count_convs(Trainee(args, 'float'), torch.nn.Conv2d)
    trainee.loss().backward()
    reached = [
        parameter.grad.any() for name, parameter in trainee.model.named_parameters()
        if not name.endswith('zero_point')  # learns only where something is clipped
    ]
    assert sum(reached) > 0.9 * len(reached)


def test_the_composition_computes_what_mmaqd_computes(args) -> None:
    losses = [Trainee(args, name).loss() for name in ('mmaqd', 'plain composition')]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)


def test_the_fused_conv_keeps_less_than_the_others(args) -> None:
    fused, compiled, channels_last, *others = [
        Trainee(args, name).saved_bytes() for name in CONV_CLASSES
    ]
    assert fused == compiled == channels_last < min(others)


def test_only_one_variant_compiles_its_kernels(args) -> None:
    compiling = [name for name in CONV_CLASSES if kernels_are_compiled(Trainee(args, name).model)]
    assert compiling == ['mmaqd, compiled kernels', 'mmaqd, compiled kernels, channels last']


def test_under_autocast_the_losses_get_float32(args) -> None:
    args.autocast, found = 'bf16', []
    trainee = Trainee(args, 'mmaqd')
    head = trainee.model.bbox_head
    for conv in (head.retina_cls, head.retina_reg):
        conv.register_forward_hook(lambda *hooked: found.append(hooked[-1].dtype))
    head.register_forward_hook(
        lambda *hooked: found.extend(each.dtype for levels in hooked[-1] for each in levels))
    assert trainee.loss().isfinite()
    assert found == 10 * [torch.bfloat16] + 10 * [torch.float32]


def test_brevitas_variant_trains(args) -> None:
    pytest.importorskip('brevitas', reason='Brevitas is not installed')
    Trainee(args, 'brevitas').step()


def test_table_and_bars_show_ratios_to_float() -> None:
    row = dict(name='mmaqd', seconds=2.0, step_ratio=1.1, spread=(1.0, 1.2))
    rows = [dict(row, saved=2**21, peak=3 * 2**20)]
    assert '| mmaqd | 1.10 (1.00 to 1.20) | 2.00 | 2.00 (2 MiB) | 1.50 (3 MiB) |' in table(
        rows, 2**20, 2**21)
    panels = plot(rows, 2**20, 2**21).axes
    assert [panel.patches[0].get_width() for panel in panels] == [1.1, 2.0, 1.5]


def test_profile_times_calls_and_returns_their_results() -> None:

    class Adder:

        def add(self, x: int, y: int) -> int:
            return x + y

    times = cost_profile.defaultdict(float)
    cost_profile.time_calls(Adder, 'add', times, lambda _: 'adder')
    assert Adder().add(1, y=2) == 3
    assert list(times) == ['adder, add'] and times['adder, add'] > 0


def test_every_variant_is_measured() -> None:
    assert set(VARIANTS) == {*CONV_CLASSES, 'brevitas'}
