"""Rows that are made out of other rows."""
from __future__ import annotations

import pytest
from study_rows import LONGER_AS_TEACHER, TWIN_AS_TEACHER, Row, in_small_batches, trained_on

FLOAT = Row('small_12e_bccd', 'bccd/small.py', ('norms', ), 'Small', note='12 epochs')


def test_a_row_that_is_trained_on_starts_from_the_row():
    row = trained_on(FLOAT, 24)
    assert (row.name, row.note) == ('small_12e-24e_bccd', '12 + 24 epochs')
    assert (row.start, row.config, row.detector) == (FLOAT.name, FLOAT.config, FLOAT.detector)
    assert set(row.overrides.values()) == {24}


def test_a_float_row_in_small_batches():
    row = in_small_batches(trained_on(FLOAT))
    assert (row.name, row.note) == ('small_12e-6e-b2_bccd', '12 + 6 epochs, batches of 2')
    assert row.overrides == {**trained_on(FLOAT).overrides, 'train_dataloader.batch_size': 2}


@pytest.mark.parametrize('note, expected', [('', 'batches of 2'),
                                            ('distillation', 'distillation, batches of 2')])
def test_a_low_bit_row_in_small_batches(note, expected):
    row = in_small_batches(
        Row('small-w2a2_6e_bccd',
            'bccd/small.py', ('main', ),
            'Small',
            note=note,
            overrides=TWIN_AS_TEACHER))
    assert (row.name, row.note) == ('small-w2a2-b2_6e_bccd', expected)
    assert row.overrides == {**TWIN_AS_TEACHER, 'train_dataloader.batch_size': 2}


@pytest.mark.parametrize('overrides, needed', [({}, {'start'}),
                                               (TWIN_AS_TEACHER, {'start', 'twin'}),
                                               (LONGER_AS_TEACHER, {'start', 'teacher'})])
def test_a_row_needs_what_it_starts_from_and_what_its_overrides_name(overrides, needed):
    row = Row('row', 'row.py', ('main', ), 'Small', overrides=overrides, start='a', twin='b',
              teacher='c')  # yapf: disable
    assert row.needs == {
        key: value
        for key, value in dict(start='a', twin='b', teacher='c').items() if key in needed
    }
