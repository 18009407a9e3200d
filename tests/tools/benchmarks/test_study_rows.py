"""Rows that are made out of other rows."""
from __future__ import annotations

import pytest
from study_rows import BATCH_SIZE, TWIN_AS_TEACHER, Row, in_batches_of, trained_on

FLOAT = Row('small_12e_bccd', 'bccd/small.py', ('norms', ), 'Small', note='12 epochs')
TAUGHT_BY_ANOTHER = {'model.distillation.checkpoint': '{teacher}'}


def test_a_row_that_is_trained_on_starts_from_the_row():
    row = trained_on(FLOAT, 24)
    assert (row.name, row.note) == ('small_12e-24e_bccd', '12 + 24 epochs')
    assert (row.start, row.config, row.detector) == (FLOAT.name, FLOAT.config, FLOAT.detector)
    assert set(row.overrides.values()) == {24}


def test_a_float_row_in_other_batches():
    row = in_batches_of(trained_on(FLOAT), 2)
    assert (row.name, row.note) == ('small_12e-6e-b2_bccd', '12 + 6 epochs, batches of 2')
    assert row.overrides == {**trained_on(FLOAT).overrides, BATCH_SIZE: 2}


@pytest.mark.parametrize('note, expected', [('', 'batches of 8'),
                                            ('distillation', 'distillation, batches of 8')])
def test_a_low_bit_row_in_other_batches(note, expected):
    low_bit = Row(
        'small-w2a2_6e_bccd',
        'bccd/small.py', ('main', ),
        'Small',
        note=note,
        overrides={
            **TWIN_AS_TEACHER, BATCH_SIZE: 2
        })
    row = in_batches_of(low_bit, 8)
    assert (row.name, row.note) == ('small-w2a2-b8_6e_bccd', expected)
    assert row.overrides == {**TWIN_AS_TEACHER, BATCH_SIZE: 8}


@pytest.mark.parametrize('overrides, needed', [({}, {'start'}),
                                               (TWIN_AS_TEACHER, {'start', 'twin'}),
                                               (TAUGHT_BY_ANOTHER, {'start', 'teacher'})])
def test_a_row_needs_what_it_starts_from_and_what_its_overrides_name(overrides, needed):
    row = Row('row', 'row.py', ('main', ), 'Small', overrides=overrides, start='a', twin='b',
              teacher='c')  # yapf: disable
    assert row.needs == {
        key: value
        for key, value in dict(start='a', twin='b', teacher='c').items() if key in needed
    }
