"""The tables, the pages and the figure, from a record made up here."""
from __future__ import annotations

import pytest
from accuracy_report import draw, fill, table_lines

TABLE = dict(
    rows='model',
    other='float',
    pairs={
        'float': ['twin', None],
        '4 bits': ['low', 'twin'],
        'one seed': ['once', 'twin']
    })


@pytest.fixture
def record():
    figures = dict(
        twin={
            0: 40,
            1: 42,
            2: 41,
            5: 41
        }, low={
            0: 41,
            1: 44,
            2: 44,
            9: 0
        }, once={5: 40.97})
    return {
        row: dict(runs={
            str(seed): dict(metrics=dict(bbox_mAP=ap / 100))
            for seed, ap in aps.items()
        })
        for row, aps in figures.items()
    }


def test_rows_are_compared_on_common_seeds(record):
    # Differences 1, 2, 3: 4.303 / sqrt(3) = 2.48.
    assert table_lines(record, TABLE) == [
        '| model | seeds | AP | float, same seeds | difference [95 %] | each seed |',
        '|---|---|---|---|---|---|', '| float | 0, 1, 2, 5 | 41.0 ± 0.8 |  |  |  |',
        '| 4 bits | 0 to 2 | 43.0 ± 1.7 | 41.0 ± 1.0 | +2.0 [-0.5, +4.5] | +1.0, +2.0, +3.0 |',
        '| one seed | 5 | 41.0 | 41.0 | 0.0 | 0.0 |'
    ]


def test_the_interval_over_images_stands_where_all_runs_have_it(record):
    for row, ap in (('low', 3.0), ('twin', 1.0)):
        for run in record[row]['runs'].values():
            run['resampled'] = [ap] * 200
    assert '[-0.5, +4.5]; over images [+2.0, +2.0] |' in table_lines(record, TABLE)[3]
    del record['low']['runs']['2']['resampled']
    assert 'over images' not in table_lines(record, TABLE)[3]


def test_only_what_is_between_the_markers_changes(record):
    page = 'by hand\n<!-- table: one -->\nold\n<!-- end -->\nby hand too\n'
    filled = fill(page, record, dict(one=TABLE))
    lines = '\n'.join(table_lines(record, TABLE))
    assert filled == (f'by hand\n<!-- table: one -->\n\n{lines}\n\n<!-- end -->\nby hand too\n')
    assert fill(filled, record, dict(one=TABLE)) == filled


def test_every_comparison_is_drawn(record):
    figure = draw(record, [TABLE, {**TABLE, 'pairs': {'again': ['low', 'twin']}}])
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [['4 bits', 'one seed'], ['again']]
    assert [len(line.get_xdata()) for line in figure.axes[1].lines][:1] == [3]
