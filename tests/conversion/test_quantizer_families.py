"""A detector with the quantizers of each family: it trains, saves, loads and is reported."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmaqd.conversion import prepare, quantization_table
from mmaqd.engine import LogIntervalsHook
from mmaqd.quantizers import CheckpointMismatchError, Quantizer, calibrate
from tests.helpers.detector import build, make_batch, model_cfg, raw_outputs

FAMILIES = {
    'lsq': ('LSQWeightQuantizer', 'LSQActivationQuantizer'),
    'lsq_plus': ('LSQPlusWeightQuantizer', 'LSQPlusActivationQuantizer'),
    'pact': ('DoReFaWeightQuantizer', 'PACTActivationQuantizer'),
    'dorefa': ('DoReFaWeightQuantizer', 'DoReFaActivationQuantizer'),
}
each_family = pytest.mark.parametrize('family', FAMILIES)


def family_cfg(family: str) -> dict:
    """The tests' RetinaNet with 3 bits, first conv and prediction convs at 8 bits."""
    cfg = model_cfg('RetinaNet', 3)
    quantization = cfg['quantization']
    for role, name in zip(('weight_quantizer', 'input_quantizer'), FAMILIES[family]):
        quantization[role] = dict(type=f'mmaqd.{name}', bit_width=3)
        for rule in quantization['rules']:
            if rule.get(role):
                rule[role] = dict(bit_width=8)
    return cfg


def build_calibrated(family: str) -> nn.Module:
    model = build(family_cfg(family))
    calibrate(model, [make_batch()])
    return model


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


@each_family
def test_every_parameter_gets_a_gradient(family: str) -> None:
    model = build_calibrated(family).train()
    batch = model.data_preprocessor(make_batch(), training=True)
    losses = model.loss(batch['inputs'], batch['data_samples'])
    sum(torch.stack(list(loss)).sum() for loss in losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@each_family
def test_state_goes_round_to_the_bit(family: str) -> None:
    model = build_calibrated(family).eval()
    fresh = build(family_cfg(family), seed=9).eval()
    fresh.load_state_dict(model.state_dict())
    for one, other in zip(raw_outputs(fresh, make_batch()), raw_outputs(model, make_batch())):
        assert torch.equal(one, other)


@each_family
@pytest.mark.parametrize('direction', ['to_liq', 'from_liq'])
def test_state_of_another_family_is_refused_before_anything_changes(family, direction) -> None:
    cfgs = [family_cfg(family), model_cfg('RetinaNet', 3)]
    saved, loaded = cfgs if direction == 'to_liq' else cfgs[::-1]
    model = build(loaded, seed=9)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match=r'backbone\..*_quantizer\.'):
        model.load_state_dict(build(saved).state_dict(), strict=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_state_with_part_of_a_quantizer_is_refused() -> None:
    model = build(model_cfg('RetinaNet', 3))
    state = model.state_dict()
    missing = 'neck.fpn_convs.0.conv.input_quantizer.interval'
    del state[missing]
    with pytest.raises(CheckpointMismatchError, match=f'lacks {missing}. Use'):
        model.load_state_dict(state, strict=False)


@each_family
def test_table_and_log_know_every_quantizer(family: str) -> None:
    model = build_calibrated(family)
    rows = {row.module: row for row in quantization_table(model)}
    row = rows['neck.fpn_convs.0.conv']
    assert (row.weight_quantizer, row.input_quantizer) == FAMILIES[family]
    assert (row.weight_bits, row.input_bits, row.granularity) == (3, 3, 'per_tensor')
    logged = {}
    visualizer = SimpleNamespace(add_scalars=lambda scalars, step: logged.update(scalars))
    runner = SimpleNamespace(model=model, visualizer=visualizer, iter=0)
    LogIntervalsHook(interval=1).after_train_iter(runner, batch_idx=0)
    assert logged == {
        f'interval/{name}': pytest.approx(quantizer.interval.item())
        for name, quantizer in quantizers_of(model).items()
    }


@pytest.mark.parametrize('name', ['LSQWeightQuantizer', 'LSQPlusWeightQuantizer'])
def test_per_channel_is_an_option(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False))
    prepare(model, dict(type=f'mmaqd.{name}', bit_width=4, axis=0))
    assert quantization_table(model)[0].granularity == 'per_channel'
    assert model[0].weight_quantizer.step_size.shape == (5, )


@each_family
def test_only_liq_knows_normalize(family: str) -> None:
    """So convs with a bias need no rule, and one that asks for it is an error that names them."""
    weight = dict(type=f'mmaqd.{FAMILIES[family][0]}', bit_width=4)
    prepare(nn.Sequential(nn.Conv2d(3, 5, 3)), weight)
    with pytest.raises(TypeError, match=r'^0: .*unknown key\(s\) normalize'):
        prepare(nn.Sequential(nn.Conv2d(3, 5, 3)), dict(weight, normalize=False))
