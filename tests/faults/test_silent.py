"""Faults that gave wrong detectors without a word: each is refused, undone or said."""
from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmaqd.conversion import prepare, quantization_table
from mmaqd.quantizers import CalibrationError, calibrate

LIQ = dict(type='mmaqd.LIQWeightQuantizer', bit_width=8)
DOREFA = dict(type='mmaqd.DoReFaWeightQuantizer', bit_width=8)
LSQ = dict(type='mmaqd.LSQWeightQuantizer', bit_width=4)
INPUTS = {
    'liq': dict(type='mmaqd.LIQActivationQuantizer', bit_width=8),
    'liq-constant': dict(type='mmaqd.LIQActivationQuantizer', bit_width=8, start='constant'),
    'lsq': dict(type='mmaqd.LSQActivationQuantizer', bit_width=8),
    'pact': dict(type='mmaqd.PACTActivationQuantizer', bit_width=8),
    'dorefa': dict(type='mmaqd.DoReFaActivationQuantizer', bit_width=8, clip=6.0),
}


class Net(nn.Module):
    """Three convs with BN and an activation; ``norm_eval`` as in MMDetection's backbones."""

    def __init__(self, act: nn.Module | None = None, norm_eval: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3 if not i else 4, 4, 3, padding=1, bias=False) for i in range(3))
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.act = act or nn.ReLU()
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        for bn in self.bns:
            bn.train(mode and not self.norm_eval)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for conv, bn in zip(self.convs, self.bns):
            x = self.act(bn(conv(x)))
        return x


def run(model: nn.Module, x: Tensor) -> Any:
    return model(x)


def images(count: int = 2) -> list[Tensor]:
    return [torch.rand(2, 3, 8, 8) for _ in range(count)]


def trained(**options: Any) -> Net:
    """A float net whose statistics are those of its images."""
    net = Net(**options)
    for bn in net.bns:
        bn.train()
        bn.momentum = None
    for x in images(20):
        net(x)
    return net


@pytest.fixture
def said(caplog):
    """What is logged by MMEngine's logger of a run, whose name stays while the tests run."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


class TestScale:
    """Weights of another scale in front of statistics of the float model."""

    @pytest.mark.parametrize('weight', [LIQ, dict(LIQ, center=False), DOREFA], ids=str)
    def test_frozen_bn_is_refused_and_the_rules_end_it(self, weight):
        reference = trained(norm_eval=True).eval()
        net = Net(norm_eval=True)
        net.load_state_dict(reference.state_dict())
        prepare(net, weight, INPUTS['liq'])
        with pytest.raises(ValueError, match=r'convs\.0: .*bns\.0 behind it keeps its') as error:
            calibrate(net, images(), run)
        lines = [line for line in str(error.value).splitlines() if line.startswith('    dict(')]
        rules = [eval(line.strip().rstrip(',')) for line in lines]
        net = Net(norm_eval=True)
        net.load_state_dict(reference.state_dict())
        prepare(net, weight, INPUTS['liq'], rules)
        calibrate(net, images(), run, need_norms=True)
        x = images(1)[0]
        expected = reference(x)
        assert (net.eval()(x) - expected).abs().mean() < 0.25 * expected.abs().mean()  # of 8 bits

    @pytest.mark.parametrize('weight', [LIQ, DOREFA], ids=str)
    def test_norms_that_train_take_the_scale_back(self, weight):
        net = prepare(Net(), weight, INPUTS['liq'])
        assert calibrate(net, images(), run, need_norms=True) > 0

    def test_a_layer_without_a_norm(self):
        net = Net()
        net.bns[1] = nn.Identity()
        prepare(net, dict(LIQ), INPUTS['liq'])
        with pytest.raises(ValueError, match=r'convs\.1: .*no norm gets its output'):
            calibrate(net, images(), run, need_norms=True)

    def test_unless_the_config_promises_a_norm_further_on(self):
        net = Net()
        net.bns[1] = nn.Identity()
        prepare(net, dict(LIQ, normalize=True), INPUTS['liq'])
        assert calibrate(net, images(), run, need_norms=True) > 0

    def test_a_low_bit_checkpoint_has_statistics_that_fit(self):
        net = prepare(Net(), LIQ, INPUTS['liq'])
        calibrate(net, images(), run)
        frozen = prepare(Net(norm_eval=True), LIQ, INPUTS['liq'])
        frozen.load_state_dict(net.state_dict())
        assert calibrate(frozen, images(), run, need_norms=True) == 0


class TestNegativeInputs:
    """Unsigned codes behind an activation that lets negative values through."""

    @pytest.mark.parametrize('family', INPUTS)
    def test_every_family_refuses_them_all_at_once(self, family):
        net = prepare(Net(nn.SiLU()), LSQ, INPUTS[family])
        with pytest.raises(CalibrationError, match=r'^convs\.1\.input_quantizer: .*negative') as e:
            calibrate(net, images(), run)
        assert 'convs.2.input_quantizer' in str(e.value)
        lines = [line for line in str(e.value).splitlines() if line.startswith('    dict(')]
        rules = [eval(line.strip().rstrip(',')) for line in lines]
        mended = prepare(Net(nn.SiLU()), LSQ, INPUTS[family], rules)
        calibrate(mended, images(), run)
        assert type(mended.convs[0].input_quantizer).__name__ != 'LSQPlusActivationQuantizer'

    @pytest.mark.parametrize('training', [True, False])
    def test_without_calibration_they_are_said_once(self, training, said):
        net = prepare(Net(nn.SiLU()), LSQ, INPUTS['pact'])
        for conv in net.convs:
            conv.weight_quantizer = None
        with said.at_level(logging.WARNING):
            for x in images(3):
                net.train(training)(x)
        for name in ('convs.1', 'convs.2'):
            assert said.text.count(f'{name}.input_quantizer: its input holds -') == 1
        assert 'convs.0' not in said.text

    def test_after_calibration_they_are_said(self, said):
        net = prepare(Net(), LSQ, INPUTS['liq'])
        calibrate(net, images(), run)
        net.act = nn.SiLU()
        with said.at_level(logging.WARNING):
            net.eval()(images(1)[0])
            assert 'convs.1.input_quantizer: its input holds -' in said.text

    def test_later_in_training_they_are_said(self, said):
        net = prepare(Net(), LSQ, INPUTS['liq'])
        calibrate(net, images(), run)
        x = torch.rand(1, 3, 4, 4)
        with said.at_level(logging.WARNING):
            net(x)
            net.act = nn.SiLU()
            for _ in range(101):
                net(x)
        assert said.text.count('convs.1.input_quantizer: its input holds -') == 1


class TestTable:
    """What the table shows is what runs."""

    class Reader(nn.Module):
        """Uses the weight of a conv that it never calls."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.conv.weight)

    @pytest.mark.parametrize('family', INPUTS)
    def test_a_weight_that_is_read(self, family):
        with pytest.raises(ValueError, match='conv: .*read without calling it, as Reader does'):
            prepare(self.Reader(), LSQ, INPUTS[family])

    @pytest.mark.parametrize('family', INPUTS)
    def test_a_layer_that_is_never_called(self, family):
        net = Net()
        net.spare = nn.Conv2d(4, 4, 1, bias=False)
        prepare(net, LSQ, INPUTS[family])
        with pytest.raises(CalibrationError, match=r'^spare\.\w+: no data reached') as error:
            calibrate(net, images(), run)
        assert "dict(pattern='spare', weight_quantizer=None" in str(error.value)

    def test_parameters_of_any_name_have_a_row(self):
        net = nn.Module()
        net.attention = nn.MultiheadAttention(8, 2)
        net.queries = nn.Parameter(torch.rand(5, 8))
        rows = {row.module: row for row in quantization_table(net)}
        assert rows['attention'].num_weights == 3 * 8 * 8
        assert rows['attention.out_proj'].num_weights == 64
        assert rows[''].num_weights == 40
        assert {row.weight_bits for row in rows.values()} == {32}


class TestModes:
    """Calibration sees what training will see."""

    def test_frozen_bn_stays_frozen(self):
        net = trained(norm_eval=True)
        net.bns[0].running_mean.fill_(-2)
        seen = []
        net.bns[0].register_forward_hook(lambda bn, x, out: seen.append((x[0], out)))
        prepare(net, LSQ, INPUTS['liq'])
        calibrate(net, images(1), run)
        x, out = seen[-1]
        torch.testing.assert_close(out, net.bns[0].eval()(x))

    def test_bn_without_an_epsilon(self):
        net = trained(norm_eval=True)
        net.bns[0].eps = 0.0
        prepare(net, LSQ, INPUTS['liq'])
        assert calibrate(net, images(1), run) == 6

    def test_one_value_per_channel(self):
        net = prepare(trained(), LSQ, INPUTS['liq'])
        assert calibrate(net, [torch.rand(1, 3, 1, 1)], run) == 6

    @pytest.mark.parametrize('family', INPUTS)
    @pytest.mark.parametrize('value', [float('nan'), float('inf')])
    def test_nan_and_infinity(self, family, value):
        net = prepare(Net(), LSQ, INPUTS[family])
        x = images(1)[0]
        x[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=r'^convs\.0\.input_quantizer: .*NaN or infinity'):
            calibrate(net, [x], run)
        assert not any(conv.weight_quantizer.initialized for conv in net.convs)

    def test_samples_do_not_grow_without_bound(self):
        conv = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
        net = prepare(conv, LSQ, dict(INPUTS['liq'], start='least_error'))
        held = []

        def watch(model: nn.Module, x: Tensor) -> None:
            model(x)
            held.append(sum(part.numel() for part in model[0].input_quantizer.quantizer._samples))

        calibrate(net, (torch.rand(1, 1, 128, 128) for _ in range(120)), watch)
        assert max(held) <= 2**18 and held[-1] > 2**16


class TestZeroWeights:
    """Codes without a zero must not bring weights to life."""

    @pytest.mark.parametrize('bits', [2, 4, 8])
    @pytest.mark.parametrize('normalize', [True, False])
    def test_a_layer_that_starts_at_zero_stays_silent(self, bits, normalize):
        net = Net()
        net.offset = nn.Conv2d(4, 2, 3, bias=True)
        nn.init.zeros_(net.offset.weight)
        nn.init.zeros_(net.offset.bias)
        weight = dict(LIQ, bit_width=bits, normalize=normalize)
        prepare(net, weight, INPUTS['liq'])
        calibrate(net, images(), lambda model, x: model.offset(model(x)))
        assert net.offset(net(images(1)[0])).abs().max() < 1e-3

    def test_fixed_ranges_can_not_and_say_so(self):
        net = Net()
        nn.init.zeros_(net.convs[1].weight)
        prepare(net, dict(DOREFA, bit_width=4), INPUTS['liq'])
        with pytest.raises(ValueError, match=r'convs\.1: all its weights are zero.*\n.*LSQWeight'):
            calibrate(net, images(), run)

    @pytest.mark.parametrize('bits, warns', [(4, True), (8, False)])
    def test_pruned_weights(self, bits, warns, said):
        net = Net()
        with torch.no_grad():
            net.convs[1].weight.view(-1)[::2] = 0
        prepare(net, dict(LIQ, bit_width=bits, normalize=False), INPUTS['liq'])
        with said.at_level(logging.WARNING):
            calibrate(net, images(), run)
        assert ('convs.1: 50% of its weights are exactly zero' in said.text) is warns
