"""The study's own rows, its record, its pages, and every figure that other documents quote."""
from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from accuracy_report import PAGES, aps, fill, read_tables
from accuracy_runs import read_rows
from accuracy_statistics import compare
from accuracy_study import Study, read_record
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmaqd import config_path
from mmaqd.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / 'docs' / 'benchmarks'
ROWS, RECORD, TABLES = read_rows(), read_record(DOCS / 'accuracy.json'), read_tables()['tables']
LABELS = [(label, *pair) for table in TABLES.values() for label, pair in table['pairs'].items()]
PAIRS = [(row, other) for _, row, other in LABELS]
FIGURE = re.compile(r'(?<![\w.,/])[+-]?\d{1,2}\.\d(?!\w|\.\d)')
SPREAD = re.compile(r'\d+\.\d ± \d+\.\d')
QUOTING = ('README.md', 'docs/recipes.md', 'configs/bccd/README.md')


@lru_cache(maxsize=None)
def config_of(name: str) -> Config:
    """The config of a row, with its overrides and without the places of checkpoints."""
    config = Config.fromfile(config_path(ROWS[name].config))
    config.merge_from_dict(dict(ROWS[name].overrides))
    return config


def epochs(name: str) -> int:
    """Epochs of a row and of all that it starts from."""
    row = ROWS[name]
    own = config_of(name).train_cfg.max_epochs if row.calibrate is None else 0
    return own + (epochs(row.start) if row.start else 0)


def test_every_run_is_of_a_row_as_it_is_now():
    Study(ROWS, DOCS, DOCS / 'accuracy.json', 'test')
    assert {
        name: row.seeds
        for name, row in ROWS.items()
    } == {
        name: tuple(sorted(map(int, row['runs'])))
        for name, row in RECORD.items()
    }
    assert all(run['row'] == name and run['commands'] and run['metrics']
               for name, row in RECORD.items() for run in row['runs'].values())  # yapf: disable


def test_every_row_is_in_a_table():
    assert set(ROWS) == set(chain(*PAIRS)) - {None}


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.twin])
def test_a_low_bit_row_is_compared_with_a_float_row_of_as_many_epochs(name):
    twin = config_of(ROWS[name].twin)
    assert 'quantization' not in twin.model and epochs(name) == epochs(ROWS[name].twin)
    assert config_of(name).train_dataloader.batch_size == twin.train_dataloader.batch_size


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.overrides])
def test_overrides_give_a_model(name):
    config = config_of(name).copy()
    config.model.pop('distillation', None)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        MODELS.build(config.model)


def test_labels_say_how_many_bits_a_row_has():
    for label, row, _ in LABELS:
        bits = re.search(r'(\d) bits$|^(\d) bits', label)
        if bits and 'convs at' not in label:
            quantization = config_of(row).model.quantization
            assert quantization.weight_quantizer.bit_width == int(bits[1] or bits[2]), label
            assert quantization.input_quantizer.bit_width == int(bits[1] or bits[2]), label


@pytest.mark.parametrize('page', PAGES)
def test_pages_are_what_the_record_gives(page):
    text = (DOCS / page).read_text()
    assert text == fill(text, RECORD, TABLES), 'run python tools/benchmarks/accuracy_report.py'


def test_each_table_stands_on_one_page():
    text = ''.join((DOCS / page).read_text() for page in PAGES)
    assert sorted(re.findall(r'<!-- table: (\w+) -->', text)) == sorted(TABLES)


def test_the_sentences_of_the_results_quote_their_tables():
    lines = (DOCS / 'accuracy.md').read_text().splitlines()
    tables, prose = ([line for line in lines if line.startswith('|') == is_table]
                     for is_table in (True, False))  # yapf: disable
    known = {figure.lstrip('+-') for figure in FIGURE.findall(' '.join(tables))}
    assert {figure.lstrip('+-') for figure in FIGURE.findall(' '.join(prose))} <= known


def quoted(document: str) -> str:
    """The tables, and what is said to be AP, in the sections of a document that are about BCCD."""
    sections = re.split(r'\n## ', (ROOT / document).read_text())
    lines = chain(*(text.splitlines() for text in sections if 'BCCD' in text))
    return '\n'.join(
        line if line.startswith('|') else ' '.join(re.findall(r'\S+ AP\b', line)) for line in lines)


def known_figures() -> list[float]:
    """Means, deviations and differences of the record, and what the notebook has besides."""
    known = []
    for row, other in PAIRS:
        each = list(aps(RECORD, row).values())
        known += [fmean(each), stdev(each) if len(each) > 1 else 0.0]
        if other:
            difference = compare(aps(RECORD, row), aps(RECORD, other))
            known += [difference.mean, *difference.each.values()]
            known.append(fmean(aps(RECORD, other)[seed] for seed in difference.each))
    notebook = (DOCS / 'accuracy_settings.md').read_text()
    known += map(float, FIGURE.findall(notebook))
    for seeds in re.findall(r'\d+\.\d(?: / \d+\.\d)+', notebook):
        known.append(fmean(map(float, seeds.split(' / '))))
    return [*known, *(-each for each in known)]


@pytest.mark.parametrize('document', QUOTING)
def test_figures_that_a_document_quotes_are_recorded(document):
    text, known = quoted(document), known_figures()
    assert not [
        figure for figure in FIGURE.findall(text)
        if not any(abs(float(figure) - each) < 0.0501 for each in known)
    ]
    pages = ' '.join((DOCS / page).read_text() for page in PAGES)
    assert set(SPREAD.findall(text)) <= set(SPREAD.findall(pages))
