"""A state of other bits: which parts of it are taken, and which restart."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmaqd.checkpoints import change_bits
from mmaqd.quantizers import UninitializedIntervalError, calibrate, calibrating
from tests.helpers.detector import build, build_calibrated, make_batch, model_cfg, raw_outputs

INNER = 'backbone.layer1.0.conv1'


@pytest.fixture(scope='module')
def four_bits() -> dict[str, Tensor]:
    """State of a 4-bit detector with intervals that no start gives."""
    state = build_calibrated('RetinaNet', 4, seed=5).state_dict()
    return {
        key: 0.1 + 1.3 * value if key.endswith('.interval') else value.clone()
        for key, value in state.items()
    }


def loaded(state: dict, bits: int, keep: bool) -> tuple[nn.Module, list[str]]:
    """A detector of ``bits`` bits that took what :func:`change_bits` made of a state."""
    model = build(model_cfg('RetinaNet', bits))
    state = dict(state)
    changed = change_bits(state, model, keep)
    model.load_state_dict(state)
    return model, changed


@pytest.mark.parametrize('keep', [False, True], ids=['restart', 'keep'])
@pytest.mark.parametrize('bits', [2, 3])
def test_weights_and_norms_are_taken_as_they_are(four_bits, bits, keep):
    model, _ = loaded(four_bits, bits, keep)
    own = {key: value for key, value in model.state_dict().items() if '_quantizer.' not in key}
    assert len(own) > 100
    assert all(torch.equal(value, four_bits[key]) for key, value in own.items())


@pytest.mark.parametrize('keep', [False, True], ids=['restart', 'keep'])
def test_quantizers_whose_bits_stay_are_taken_as_they_are(four_bits, keep):
    model, changed = loaded(four_bits, 2, keep)
    same = ('backbone.conv1.weight_quantizer', 'bbox_head.retina_cls.weight_quantizer',
            'bbox_head.retina_reg.input_quantizer')
    assert not set(same) & set(changed)
    own = model.state_dict()
    for name in same:
        assert own[f'{name}.bits'] == 8 and own[f'{name}.initialized']
        assert torch.equal(own[f'{name}.interval'], four_bits[f'{name}.interval'])


def test_restarted_intervals_have_no_value_and_get_one_from_data(four_bits):
    model, changed = loaded(four_bits, 2, keep=False)
    own = model.state_dict()
    open_ = {
        key.rsplit('.', 1)[0]
        for key, value in own.items() if key.endswith('.initialized') and not value
    }
    assert open_ == set(changed) and f'{INNER}.input_quantizer' in changed
    with pytest.raises(UninitializedIntervalError):
        raw_outputs(model.eval(), make_batch())
    assert calibrate(model, [make_batch()]) == len(changed)
    assert {int(own[f'{name}.bits']) for name in changed} == {2}
    assert all(each.isfinite().all() for each in raw_outputs(model, make_batch()))


def test_kept_intervals_clip_at_the_same_length(four_bits):
    model, changed = loaded(four_bits, 2, keep=True)
    with calibrating(model) as pending:
        assert not pending
    own = model.state_dict()
    for name in changed:
        assert torch.equal(own[f'{name}.interval'], four_bits[f'{name}.interval'])
        assert own[f'{name}.bits'] == 2
    quantizer = model.get_submodule(f'{INNER}.input_quantizer')
    length = float(four_bits[f'{INNER}.input_quantizer.interval'])
    x = torch.tensor([0.0, 0.4, 0.9, 5.0]) * length
    torch.testing.assert_close(quantizer(x), torch.tensor([0.0, 1 / 3, 1.0, 1.0]) * length)


@pytest.mark.parametrize('keep', [False, True], ids=['restart', 'keep'])
def test_a_state_of_the_same_bits_or_without_quantizers_is_left_alone(four_bits, keep):
    for state in (four_bits, build(model_cfg('RetinaNet')).state_dict()):
        same = dict(state)
        assert change_bits(same, build(model_cfg('RetinaNet', 4)), keep) == []
        assert same == state


def test_another_family_or_granularity_restarts(four_bits):
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['input_quantizer']['type'] = 'mmaqd.LSQActivationQuantizer'
    cfg['quantization']['weight_quantizer']['axis'] = 0
    model, state = build(cfg), dict(four_bits)
    changed = change_bits(state, model, keep=False)
    assert {f'{INNER}.input_quantizer', f'{INNER}.weight_quantizer'} <= set(changed)
    model.load_state_dict(state)
    assert not model.get_submodule(f'{INNER}.input_quantizer').initialized


def test_another_normalization_restarts(four_bits):
    cfg = model_cfg('RetinaNet', 4)
    cfg['quantization']['weight_quantizer']['center'] = False
    model, state = build(cfg), dict(four_bits)
    changed = change_bits(state, model, keep=False)
    assert f'{INNER}.weight_quantizer' in changed and f'{INNER}.input_quantizer' not in changed
    model.load_state_dict(state)
    assert not model.get_submodule(f'{INNER}.weight_quantizer').initialized


def low_bit(family: str, bits: int) -> nn.Module:
    cfg = model_cfg('RetinaNet', bits)
    cfg['quantization']['input_quantizer']['type'] = f'mmaqd.{family}ActivationQuantizer'
    return build(cfg)


@pytest.mark.parametrize('family, learned', [('LSQ', 'step_size'),
                                             ('LSQPlus', 'step_size, offset')])
def test_step_sizes_are_not_kept(family, learned):
    state = low_bit(family, 4).state_dict()
    with pytest.raises(
            ValueError,
            match=rf'backbone\..*: .*a {family}ActivationQuantizer learns '
            f'{learned}, which means something else at other bits'):
        change_bits(dict(state), low_bit(family, 2), keep=True)
    assert change_bits(dict(state), low_bit(family, 2), keep=False)


def test_clipping_lengths_of_pact_are_kept():
    state = dict(low_bit('PACT', 4).state_dict())
    key = f'{INNER}.input_quantizer.alpha'
    state[key] = torch.tensor(7.0)
    model = low_bit('PACT', 2)
    change_bits(state, model, keep=True)
    model.load_state_dict(state)
    assert model.state_dict()[key] == 7


@pytest.mark.parametrize('keep', [False, True], ids=['restart', 'keep'])
def test_a_shared_layer_changes_under_all_of_its_names(keep):

    def shared(bits: int) -> nn.Module:
        model = build(model_cfg('RetinaNet', bits))
        model.bbox_head.reg_convs[0].conv = model.bbox_head.cls_convs[0].conv
        return model

    given, model = shared(4), shared(2)
    calibrate(given, [make_batch()])
    state = given.state_dict()
    names = {
        f'bbox_head.{kind}_convs.0.conv.{role}_quantizer'
        for kind in ('cls', 'reg')
        for role in ('weight', 'input')
    }
    assert names <= set(change_bits(state, model, keep))
    model.load_state_dict(state)
    assert bool(model.get_submodule(min(names)).initialized) == keep
