"""The rows at the size of the BCCD configs, beside what test_study_grid.py says of every row."""
from __future__ import annotations

import pytest
from study_full_size import full_size_rows
from study_runs import build_runs

ROWS = {row.name: row for row in full_size_rows()}
RUNS = {run.row.name: run for run in build_runs(ROWS, [0], 'out', 'test')}
MAIN = [name for name, row in ROWS.items() if row.groups == ('main', )]
LARGE = [name for name, row in ROWS.items() if row.groups == ('large_batches', )]


def test_there_are_main_rows_and_those_in_large_batches_only():
    assert sorted([*MAIN, *LARGE]) == sorted(ROWS)
    assert {ROWS[name].detector for name in MAIN} == {'RetinaNet-R18', 'FCOS-R18'}
    assert {ROWS[name].detector for name in LARGE} == {'RetinaNet-R18'}


@pytest.mark.parametrize('name', MAIN)
def test_a_main_row_is_a_config_but_for_the_place_of_its_teacher(name):
    assert ROWS[name].config == f'bccd/{name}.py'
    assert set(ROWS[name].overrides) == ({'model.distillation.checkpoint'}
                                         if '-distill_' in name else set())


@pytest.mark.parametrize('name', [name for name in MAIN if '-distill_' in name])
def test_a_distilled_row_learns_from_the_float_row_of_as_many_epochs(name):
    assert RUNS[name].config.model.distillation.checkpoint == str(RUNS[ROWS[name].twin].checkpoint)


@pytest.mark.parametrize('name', LARGE)
def test_a_row_in_large_batches_differs_from_the_main_one_in_these_only(name):
    own, main = RUNS[name].config.to_dict(), RUNS[name.replace('-b8_', '_')].config.to_dict()
    sizes = [each['train_dataloader'].pop('batch_size') for each in (own, main)]
    assert sizes == [8, 2]
    teachers = [each['model'].get('distillation', {}).pop('checkpoint', '') for each in (own, main)]
    assert teachers[0].replace('-b8_', '_') == teachers[1]
    assert own == main


def test_every_retinanet_row_of_six_epochs_is_there_in_large_batches():
    six_epochs = [name for name in MAIN if 'retinanet' in name and '6e_bccd' in name]
    assert [name.replace('-b8_', '_') for name in LARGE] == six_epochs
