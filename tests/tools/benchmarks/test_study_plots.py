"""What the plots of the study show."""
from __future__ import annotations

import pytest
from study_plots import PLOTS, plot_bits, plot_rows
from study_rows import GROUPS

APS = dict(
    twin={
        0: 40.0,
        1: 42.0
    },
    liq4={
        0: 41.0,
        1: 43.0
    },
    liq2={0: 38.0},
    lsq2={0: 35.0},
    shared2={0: 30.0})


def values(aps, name):
    return aps.get(name, {})


@pytest.fixture
def rows(make_row):
    low = dict(twin='twin', norm='multi-level BN')
    return [
        make_row('twin', note='12 + 6 epochs'),
        make_row('liq4', method='LIQ', bits=4, **low),
        make_row('liq2', method='LIQ', bits=2, **low),
        make_row('lsq2', method='LSQ', bits=2, note='changed', **low),
        make_row('shared2', method='LIQ', bits=2, norm='shared BN'),
        make_row('missing', method='PACT', bits=2, **low),
    ]


def test_each_group_has_a_plot():
    assert set(PLOTS) == set(GROUPS)


def dots(axes):
    """The points of all lines that are drawn as dots."""
    return sorted((float(x), float(y)) for line in axes.lines if line.get_marker() == 'o'
                  for x, y in zip(line.get_xdata(), line.get_ydata()))


def test_bits_has_a_panel_for_each_head_and_a_line_for_each_method(rows):
    multi_level, shared = plot_bits(rows, APS, values).axes
    assert multi_level.get_title() == 'Net, multi-level BN'
    assert shared.get_title() == 'Net, shared BN'
    assert [text.get_text()
            for text in multi_level.get_legend().texts] == ['LIQ', 'LSQ, changed', 'float']
    assert list(multi_level.get_xticks()) == [2, 4]
    assert [(round(x), y) for x, y in dots(multi_level)] == [(2, 38), (2, 35), (4, 41), (4, 43)]
    assert [(round(x), y) for x, y in dots(shared)] == [(2, 30)]


def test_bits_draws_means_and_the_float_twin_as_lines(rows):
    axes = plot_bits(rows, APS, values).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines['LIQ'] == [38, 42]
    assert lines['float'] == [41, 41]


def test_rows_are_drawn_one_below_the_other(rows):
    axes, = plot_rows(rows, APS, values).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        '2 bits, LIQ, shared BN', '2 bits, changed', '2 bits, LIQ, multi-level BN',
        '4 bits, LIQ, multi-level BN', 'float, multi-level BN, 12 + 6 epochs'
    ]
    assert [list(line.get_xdata()) for line in axes.lines
            if line.get_label() == 'float'] == [[41, 41]]
    assert dots(axes) == [(30, 0), (35, 1), (38, 2), (40, 4), (41, 3), (42, 4), (43, 3)]


def test_long_notes_are_broken_into_lines_that_leave_room_for_the_dots(make_row):
    row = make_row('liq2', method='LIQ', bits=2, note='what is changed ' * 10)
    axes, = plot_rows([row], APS, values).axes
    label = axes.get_yticklabels()[0].get_text()
    assert max(map(len, label.splitlines())) <= 50
    assert ' '.join(label.split()) == f'2 bits, {row.note}'.strip()


@pytest.mark.parametrize('plot', [plot_bits, plot_rows])
def test_nothing_is_drawn_of_nothing(plot, rows):
    assert plot(rows, {}, values) is None
