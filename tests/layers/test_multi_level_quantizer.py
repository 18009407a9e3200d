"""Own intervals for each pyramid level, against formulas and one quantizer a level."""
from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from mmaqd.checkpoints import change_bits
from mmaqd.conversion import quantization_table
from mmaqd.functional import LIQActivationKernel
from mmaqd.layers import MultiLevelQuantizer, QuantConv2d
from mmaqd.quantizers import (CheckpointMismatchError, Quantizer, UninitializedIntervalError,
                              calibrate, calibrating)
from tests.helpers.detector import (DETECTORS, LEVELS, PREDICTION_CONVS, build, build_calibrated,
                                    loss, make_batch, model_cfg, raw_outputs)

INPUTS = 'bbox_head.cls_convs.0.conv.input_quantizer'
LIQ = dict(type='mmaqd.LIQActivationQuantizer', bit_width=2)


def levels_cfg(detector: str = 'RetinaNet', bits: int = 2, family: str = 'LIQ') -> dict:
    """A low-bit detector with an interval for each level at all inputs of the head."""
    cfg = model_cfg(detector, bits)
    rules = cfg['quantization']['rules']
    levels = dict(type='mmaqd.MultiLevelQuantizer', num_levels=LEVELS)
    for rule in rules[1:]:
        rule['input_quantizer'] = dict(levels, quantizer=dict(LIQ, bit_width=8))
    inner = dict(type=f'mmaqd.{family}ActivationQuantizer', bit_width=bits)
    rules.append(dict(pattern='bbox_head.*_convs.*', input_quantizer=dict(levels, quantizer=inner)))
    return cfg


def built(*args: object) -> nn.Module:
    """The detector of :func:`levels_cfg` with intervals started from data."""
    model = build(levels_cfg(*args))
    calibrate(model, [make_batch()])
    return model


def with_intervals(*values: float, bit_width: int = 2) -> MultiLevelQuantizer:
    quantizer = MultiLevelQuantizer(len(values), dict(LIQ, bit_width=bit_width, start='constant'))
    for level, value in zip(quantizer, values):
        level.interval.data.fill_(value)
    return quantizer


def shared_state(state: dict) -> dict:
    """The state of a model with one interval for all levels: that of level 0."""
    shared = {}
    for key, value in state.items():
        head, found, rest = key.partition('.input_quantizer.')
        level, _, name = rest.partition('.')
        if not found or not level.isdigit():
            shared[key] = value
        elif level == '0':
            shared[f'{head}.input_quantizer.{name}'] = value
    return shared


@pytest.mark.parametrize('bit_width', [2, 3, 4, 8])
def test_each_level_by_its_own_formula(bit_width: int) -> None:
    lengths, n = (0.5, 1.0, 3.0), 2**bit_width - 1
    quantizer = with_intervals(*lengths, bit_width=bit_width)
    for level in (2, 0, 1, 0):
        quantizer.zero_grad()
        quantizer.level, v = level, lengths[level]
        x, weights = 4 * torch.rand(2, 3, 4, 4) - 0.5, torch.randn(2, 3, 4, 4)
        x.requires_grad_()
        found = quantizer(x)
        (found * weights).sum().backward()
        part = x.detach() / v
        codes = torch.round(n * part.clamp(0, 1))
        inside = (part >= 0) & (part <= 1)
        slope = torch.where(inside, codes / n - part, (part > 1).float())
        torch.testing.assert_close(found, v * codes / n)
        assert torch.equal(x.grad, weights * inside)
        torch.testing.assert_close(
            quantizer[level].interval.grad, (weights * slope).sum(), rtol=1e-4, atol=1e-4)
        assert sum(each.interval.grad is not None for each in quantizer) == 1
        assert torch.equal(quantizer.quantize(x), codes.to(torch.uint8))
        assert quantizer.scale.item() == pytest.approx(v / n)


def test_what_the_levels_have_in_common() -> None:
    quantizer = with_intervals(1.0, 2.0)
    assert (quantizer.num_levels, quantizer.bit_width, quantizer.granularity) == (2, 2, 'per_level')
    assert quantizer.kernel == LIQActivationKernel(2)


def test_in_a_conv_it_is_the_quantizer_of_the_level() -> None:
    quantizer = with_intervals(0.7, 2.0)
    conv = QuantConv2d(3, 4, 3, padding=1, input_quantizer=quantizer)
    for level in (1, 0):
        x = 2 * torch.rand(2, 3, 5, 5)
        alone = copy.deepcopy(conv)
        alone.input_quantizer = copy.deepcopy(quantizer[level])
        quantizer.level = level
        results = []
        for each in (conv, alone):
            out = each(x)
            out.square().sum().backward()
            results.append((out, each.weight.grad, each.bias.grad))
            each.zero_grad()
        assert all(map(torch.equal, *results))


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_are_equal(copied) -> None:
    quantizer = with_intervals(0.7, 2.0)
    duplicate, x = copied(quantizer), torch.rand(3, 3)
    for level in (0, 1):
        quantizer.level = duplicate.level = level
        assert torch.equal(quantizer(x), duplicate(x))


class TestErrors:
    """What a user may do wrong."""

    @pytest.mark.parametrize('num_levels', [0, -1, 2.0, '5', None], ids=repr)
    def test_number_of_levels(self, num_levels) -> None:
        with pytest.raises(ValueError, match=f'MultiLevelQuantizer: num_levels .* {num_levels!r}'):
            MultiLevelQuantizer(num_levels, LIQ)

    @pytest.mark.parametrize(
        'quantizer', [None, 'LIQ', dict(type='mmaqd.LIQWeightQuantizer', bit_width=2)], ids=str)
    def test_no_quantizer_for_activations(self, quantizer) -> None:
        with pytest.raises(TypeError, match='quantizer must be the config of .* activations'):
            MultiLevelQuantizer(2, quantizer)

    def test_one_quantizer_can_not_serve_all_levels(self) -> None:
        with pytest.raises(TypeError, match='but got LIQActivationQuantizer'):
            MultiLevelQuantizer(2, with_intervals(1.0)[0])

    def test_outside_of_the_head(self) -> None:
        cfg = levels_cfg()
        cfg['quantization']['rules'].append(
            dict(
                pattern='backbone.layer1.0.conv1',
                input_quantizer=dict(
                    type='mmaqd.MultiLevelQuantizer', num_levels=LEVELS, quantizer=LIQ)))
        message = r'backbone.layer1.0.conv1.input_quantizer: a MultiLevelQuantizer works where'
        with pytest.raises(ValueError, match=message):
            build(cfg)

    def test_other_number_of_levels_than_the_neck(self) -> None:
        cfg = levels_cfg()
        cfg['quantization']['rules'][-1]['input_quantizer']['num_levels'] = 4
        message = rf'AQDRetinaHead\.{INPUTS[10:]} has num_levels=4, .* {LEVELS} feature maps'
        with pytest.raises(ValueError, match=message):
            calibrate(build(cfg), [make_batch()])

    def test_a_key_of_the_quantizer_of_a_level(self) -> None:
        cfg = levels_cfg()
        cfg['quantization']['rules'][-1]['input_quantizer']['quantizer']['bits'] = 4
        with pytest.raises(
                TypeError, match=r'bbox_head.*LIQActivationQuantizer got unknown .* bits'):
            build(cfg)

    def test_uninitialized_names_the_level(self) -> None:
        model = build(levels_cfg())
        for name, module in model.named_modules():
            if isinstance(module, Quantizer) and not name.startswith(INPUTS):
                module.initialized.fill_(True)
        with pytest.raises(UninitializedIntervalError, match=rf'{INPUTS}\.0: the interval was'):
            raw_outputs(model, make_batch())


class TestInADetector:
    """The head names the levels, and each learns what is its own."""

    @pytest.mark.parametrize('family', ['LIQ', 'LSQ', 'LSQPlus', 'PACT', 'DoReFa'])
    def test_every_family_trains(self, family: str) -> None:
        model = built('RetinaNet', 3, family).train()
        loss(model, make_batch()).backward()
        levels = [each for each in model.bbox_head.modules() if isinstance(each, Quantizer)]
        assert len(levels) == 4 + 4 * LEVELS
        learned = [each for quantizer in levels for each in quantizer.parameters()]
        assert all(torch.isfinite(parameter.grad).all() for parameter in learned)

    @pytest.mark.parametrize('detector', DETECTORS)
    def test_every_level_starts_from_its_own_inputs(self, detector: str) -> None:
        model, seen = build(levels_cfg(detector)), []
        conv = model.bbox_head.cls_convs[0].conv
        with calibrating(model):
            handle = conv.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
            raw_outputs(model.train(), make_batch())
            handle.remove()
        assert len(seen) == LEVELS
        for level, x in enumerate(seen):
            alone = MultiLevelQuantizer(1, LIQ)
            alone[0].observe(x)
            alone[0].initialize()
            assert torch.equal(conv.input_quantizer[level].interval, alone[0].interval)

    @pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
    def test_equal_intervals_are_one_interval(self, training: bool) -> None:
        shared = build_calibrated('RetinaNet', 2).train(training)
        model = build(levels_cfg()).train(training)
        model.load_state_dict(shared.state_dict())
        results = [raw_outputs(each, make_batch()) for each in (shared, model)]
        assert all(map(torch.equal, *results))
        if training:
            for each in (shared, model):
                loss(each, make_batch()).backward()
            levels = model.get_submodule(INPUTS)
            assert len({float(level.interval.grad) for level in levels}) == LEVELS
            torch.testing.assert_close(
                sum(level.interval.grad for level in levels),
                shared.get_submodule(INPUTS).interval.grad)

    @pytest.mark.slow
    def test_compiles_without_a_graph_break(self) -> None:
        model = built().train()
        images = model.data_preprocessor(make_batch(), training=True)['inputs']
        expected = model(images, mode='tensor')
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        for found, wanted in zip(compiled(images, mode='tensor'), expected):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

    def test_the_table_has_its_bits(self) -> None:
        rows = {row.module: row for row in quantization_table(built())}
        row = rows[INPUTS.rpartition('.')[0]]
        assert (row.input_bits, row.input_quantizer) == (2, 'MultiLevelQuantizer')
        assert all(rows[f'bbox_head.{name}'].input_bits == 8
                   for name in PREDICTION_CONVS['RetinaNet'])


class TestCheckpoints:
    """What is loaded into it."""

    def test_goes_round_to_the_bit(self) -> None:
        model, fresh = built(), build(levels_cfg(), seed=5)
        for level, quantizer in enumerate(model.get_submodule(INPUTS)):
            quantizer.interval.data.fill_(0.5 + level)
        fresh.load_state_dict(model.state_dict())
        results = [raw_outputs(each.eval(), make_batch()) for each in (model, fresh)]
        assert all(map(torch.equal, *results))

    def test_one_interval_goes_to_every_level(self) -> None:
        model, fresh = built(), build(levels_cfg(), seed=5)
        fresh.load_state_dict(shared_state(model.state_dict()))
        first = model.get_submodule(INPUTS)[0].interval
        assert all(torch.equal(level.interval, first) for level in fresh.get_submodule(INPUTS))

    def test_a_float_checkpoint_leaves_all_levels_open(self) -> None:
        model = build(levels_cfg())
        model.load_state_dict(build(model_cfg('RetinaNet'), seed=5).state_dict())
        assert not any(level.initialized for level in model.get_submodule(INPUTS))

    def test_several_intervals_are_not_one(self) -> None:
        with pytest.raises(CheckpointMismatchError, match=rf'has also {INPUTS}\.0\.interval'):
            build_calibrated('RetinaNet', 2).load_state_dict(built().state_dict())

    def test_other_bits_are_refused(self) -> None:
        with pytest.raises(CheckpointMismatchError, match=rf'{INPUTS}\.0: .* of 2 bits, .* 3 bits'):
            build(levels_cfg('RetinaNet', 3)).load_state_dict({
                key: value
                for key, value in built().state_dict().items()
                if '_quantizer' not in key or key.startswith(INPUTS)
            })

    @pytest.mark.parametrize('shared', [True, False], ids=['one', 'several'])
    @pytest.mark.parametrize('keep', [True, False], ids=['keep', 'restart'])
    def test_a_start_from_other_bits(self, shared: bool, keep: bool) -> None:
        state = built('RetinaNet', 4).state_dict()
        state = shared_state(state) if shared else state
        model = build(levels_cfg())
        changed = change_bits(state, model, keep)
        model.load_state_dict(state)
        levels = model.get_submodule(INPUTS)
        assert {f'{INPUTS}.{level}' for level in range(LEVELS)} <= set(changed)
        assert [bool(level.initialized) for level in levels] == [keep] * LEVELS
        assert [int(level.bits) for level in levels] == [2] * LEVELS

    def test_from_several_intervals_at_other_bits_to_one(self) -> None:
        state, model = built('RetinaNet', 4).state_dict(), build(model_cfg('RetinaNet', 2))
        assert INPUTS in change_bits(state, model, keep=False)
        model.load_state_dict(state)
        assert not model.get_submodule(INPUTS).initialized
