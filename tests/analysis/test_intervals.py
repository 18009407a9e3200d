"""Reading and drawing learned intervals."""
import json

import pytest
import torch
from matplotlib.image import imread
from mmengine.logging import HistoryBuffer
from torch import nn

from mmaqd.analysis import (checkpoint_intervals, logged_intervals, plot_interval_history,
                            plot_intervals)
from mmaqd.conversion import prepare
from mmaqd.layers import MultiLevelQuantizer, QuantConv2d

START = {'a.weight_quantizer': 1.0, 'a.input_quantizer': 2.0, 'b.weight_quantizer': 3.0}
END = {'a.weight_quantizer': 1.5, 'a.input_quantizer': 1.0, 'b.weight_quantizer': 2.5}


def log(folder, *records):
    path = folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(r if isinstance(r, str) else json.dumps(r) for r in records))


def test_checkpoint_intervals(tmp_path):
    model = prepare(
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU()),
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, axis=0),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4))
    model[0].weight_quantizer.interval.data.copy_(torch.tensor([1.0, 2.0]))
    model[0].input_quantizer.interval.data.fill_(0.25)
    # A runner's checkpoint holds its history of logged values too.
    history = dict(log_scalars={'train/loss': HistoryBuffer([0.5], [1])})
    torch.save(dict(state_dict=model.state_dict(), message_hub=history), tmp_path / 'model.pth')
    assert checkpoint_intervals(tmp_path / 'model.pth') == {
        '0.weight_quantizer': 1.5,
        '0.input_quantizer': 0.25
    }


@pytest.mark.parametrize(('weight', 'inputs'), [('LSQWeight', 'LSQActivation'),
                                                ('LSQPlusWeight', 'LSQPlusActivation'),
                                                ('LIQWeight', 'PACTActivation')])
def test_checkpoint_intervals_of_other_families(tmp_path, weight, inputs):
    model = prepare(
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU()),
        weight_quantizer=dict(type=f'mmaqd.{weight}Quantizer', bit_width=4, axis=0),
        input_quantizer=dict(type=f'mmaqd.{inputs}Quantizer', bit_width=4))
    for value, parameter in enumerate(model.parameters(), start=1):
        parameter.data.fill_(-0.3 * value if parameter is model[0].weight else 0.3 * value)
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    assert checkpoint_intervals(tmp_path / 'model.pth') == {
        '0.weight_quantizer': pytest.approx(model[0].weight_quantizer.interval.mean().item()),
        '0.input_quantizer': pytest.approx(model[0].input_quantizer.interval.item())
    }


def test_checkpoint_intervals_of_each_level(tmp_path):
    quantizer = MultiLevelQuantizer(2, dict(type='mmaqd.LIQActivationQuantizer', bit_width=4))
    for level, value in zip(quantizer, (0.5, 0.25)):
        level.interval.data.fill_(value)
    model = nn.Sequential(QuantConv2d(1, 2, 1, input_quantizer=quantizer))
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    assert checkpoint_intervals(tmp_path / 'model.pth') == {
        '0.input_quantizer.0': 0.5,
        '0.input_quantizer.1': 0.25
    }


def test_a_float_checkpoint_is_refused(tmp_path):
    torch.save(dict(state_dict=nn.Conv2d(1, 1, 1).state_dict()), tmp_path / 'float.pth')
    with pytest.raises(ValueError, match='no checkpoint of a low-bit'):
        checkpoint_intervals(tmp_path / 'float.pth')


def test_logged_intervals_follow_the_resumed_run(tmp_path):
    log(tmp_path / '20260101_000000', dict(step=10, loss=1.0), {
        'interval/a.weight_quantizer': 1.0,
        'step': 10
    }, {
        'interval/a.weight_quantizer': 9.0,
        'step': 20
    }, '{"interval/a.wei')
    log(tmp_path / '20260101_000100', {
        'interval/a.weight_quantizer': 2.0,
        'step': 20
    }, {
        'interval/a.weight_quantizer': 3.0,
        'step': 30
    })
    history = logged_intervals(tmp_path)
    assert list(history) == [10, 20, 30]
    assert [record['a.weight_quantizer'] for record in history.values()] == [1.0, 2.0, 3.0]


def test_no_logged_intervals(tmp_path):
    with pytest.raises(FileNotFoundError, match='LogIntervalsHook'):
        logged_intervals(tmp_path)


def test_plot_has_two_bars_for_each_quantizer(tmp_path):
    figure = plot_intervals(START, END)
    weights, inputs = figure.axes
    heights = [[bar.get_height() for bar in bars] for bars in weights.containers]
    assert heights == [[1.0, 3.0], [1.5, 2.5]]
    assert [[bar.get_height() for bar in bars] for bars in inputs.containers] == [[2.0], [1.0]]
    assert [label.get_text() for label in inputs.get_xticklabels()] == ['a', 'b']


def test_each_level_is_a_layer_of_its_own_in_the_plot():
    end = {'a.weight_quantizer': 3.0, 'a.input_quantizer.0': 1.0, 'a.input_quantizer.1': 2.0}
    weights, inputs = plot_intervals(end, end).axes
    assert [label.get_text() for label in inputs.get_xticklabels()] == ['a', 'a[0]', 'a[1]']
    assert [bar.get_height() for bar in inputs.containers[1]] == [1.0, 2.0]
    assert [round(bar.get_center()[0], 6) for bar in inputs.containers[1]] == [1.2, 2.2]
    assert [bar.get_height() for bar in weights.containers[1]] == [3.0]


def test_plot_is_saved(tmp_path):
    plot_intervals(START, END).savefig(tmp_path / 'plot.png')
    image = imread(tmp_path / 'plot.png')
    assert image.ndim == 3 and image.std() > 0


def test_plot_refuses_other_quantizers():
    with pytest.raises(ValueError, match='b.weight_quantizer'):
        plot_intervals(START, {name: 1.0 for name in list(END)[:2]})


HISTORY = {
    50: {
        'a.x.1.weight_quantizer': 2.0,
        'a.x.1.input_quantizer': 4.0,
        'a.x.2.weight_quantizer': 1.0
    },
    100: {
        'a.x.1.weight_quantizer': 3.0,
        'a.x.1.input_quantizer': 3.0,
        'a.x.2.weight_quantizer': 0.5,
        'b.weight_quantizer': 7.0  # was in float at first
    },
}


def curves(panel):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines]


def test_history_has_a_line_for_each_quantizer():
    weights, changes, inputs, input_changes = plot_interval_history(HISTORY).axes
    assert curves(weights) == [([50, 100], [2, 3]), ([50, 100], [1, 0.5]), ([100], [7])]
    assert curves(changes) == [([50, 100], [0, 50]), ([50, 100], [0, -50]), ([100], [0])]
    assert curves(inputs) == [([50, 100], [4, 3])]
    assert curves(input_changes) == [([50, 100], [0, -25])]
    assert weights.get_title() == 'intervals of the weights' and weights.get_yscale() == 'log'


def test_history_draws_every_level_in_the_colour_of_its_stage():
    history = {1: {'a.x.input_quantizer.0': 1.0, 'a.x.input_quantizer.1': 2.0, 'foreign': 5.0}}
    figure = plot_interval_history(history)
    inputs = figure.axes[2]
    assert curves(inputs) == [([1], [1.0]), ([1], [2.0])]
    assert len({line.get_color() for line in inputs.lines}) == 1
    assert not figure.axes[0].lines


def test_layers_of_a_stage_share_a_colour(tmp_path):
    figure = plot_interval_history(HISTORY)
    first, second, other = (line.get_color() for line in figure.axes[0].lines)
    assert first == second != other
    assert figure.axes[2].lines[0].get_color() == first
    assert [text.get_text() for text in figure.legends[0].texts] == ['a.x', 'b']
    figure.savefig(tmp_path / 'history.png')
    assert imread(tmp_path / 'history.png').std() > 0
