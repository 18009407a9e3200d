"""Tables, JSON, plots and the page, from results made up here."""
from __future__ import annotations

import json

import pytest
import study_report
from matplotlib.image import imread
from study_report import MARKERS, read_results, update_page, values, write_report
from study_rows import Group


@pytest.fixture
def rows(make_row, monkeypatch):
    groups = dict(
        main=Group('At full size'), changes=Group('One change', 'unchanged'), mended=Group('More'))
    monkeypatch.setattr(study_report, 'GROUPS', groups)
    twin = make_row('twin', note='12 + 6 epochs')
    low = make_row('low', method='LIQ', bits=4, twin='twin')
    changed = make_row(
        'changed', groups=('changes', ), method='LIQ', bits=4, note='other', twin='twin',
        reference='low')  # yapf: disable
    missing = make_row('missing', method='LIQ', bits=2, twin='twin')
    return {row.name: row for row in (twin, low, changed, missing)}


@pytest.fixture
def results(result):
    return dict(
        twin={
            0: result(0.40),
            1: result(0.42),
            2: result(0.41)
        },
        low={
            0: result(0.41),
            1: result(0.44),
            2: result(0.44, all_is_measured=False, cpu_seconds=1)
        },
        changed={0: result(0.31, cpu_seconds=120.0)},
        missing={})


def table(report, title):
    lines = report.read_text().split(f'### {title}\n\n')[1].split('\n\n')[0].splitlines()
    assert set(lines[1]) <= set('|-')
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[:1] + lines[2:]]


def test_table_of_a_group(rows, results, tmp_path):
    header, *lines = table(write_report(rows, results, tmp_path), 'At full size')
    assert header == [
        'model', 'bits', 'head', 'seeds', 'AP', 'AP50', 'AP75', 'minus float', 'CPU min'
    ]
    head = 'multi-level BN'
    # Differences 1, 2, 3: t = 2 sqrt(3) with two degrees of freedom.
    assert lines == [
        ['Net, float, 12 + 6 epochs', 'float', head, '3', '41.0 ± 1.0', '41.0', '41.0', '', '1.0'],
        ['Net, LIQ', '4/4', head, '3', '43.0 ± 1.7', '43.0', '43.0', '+2.0 (n 3, p 0.074)', '1.0'],
    ]


def test_rows_that_are_not_run_yet_are_counted(rows, results, tmp_path):
    text = write_report(rows, results, tmp_path).read_text()
    parts = [part.split('\n\n### ')[0] for part in text.split('### ')]
    counted = [part.split('Not run yet: ')[1].split('\n')[0] for part in parts if 'Not run' in part]
    assert counted == ['1 of 3 rows.']


def test_rows_that_are_compared_with_stand_in_the_table(rows, results, tmp_path):
    header, *lines = table(write_report(rows, results, tmp_path), 'One change')
    assert header[-3:] == ['minus float', 'minus unchanged', 'CPU min']
    assert [line[0]
            for line in lines] == ['Net, float, 12 + 6 epochs', 'Net, LIQ', 'Net, LIQ, other']
    assert lines[-1][4:] == ['31.0', '31.0', '31.0', '-9.0 (n 1)', '-10.0 (n 1)', '2.0']


def test_data_and_versions_are_named(rows, results, result, tmp_path):
    results['missing'][5] = result(0.2, versions=dict(torch='2.1'), machine='B')
    text = write_report(rows, results, tmp_path).read_text()
    assert text.startswith('8 runs. Trained on trainval, evaluated on test. '
                           'Versions: torch 2.0; or torch 2.1. Processors: A; or B.\n')


def test_json_has_every_row_and_every_run(rows, results, tmp_path):
    write_report(rows, results, tmp_path)
    content = json.loads((tmp_path / 'accuracy.json').read_text())
    assert list(content) == ['twin', 'low', 'changed', 'missing']
    assert content['low']['ap'] == dict(mean=43.0, std=pytest.approx(3**0.5), seeds=[0, 1, 2])
    assert content['low']['minus_twin']['row'] == 'twin'
    assert content['low']['minus_twin']['mean'] == pytest.approx(2)
    assert content['changed']['minus_reference']['mean'] == pytest.approx(-10)
    assert content['low']['runs']['1']['metrics']['bbox_mAP'] == 0.44
    assert content['missing']['ap'] is None and content['missing']['runs'] == {}


def test_nothing_yet_is_a_report_without_tables(rows, tmp_path):
    report = write_report(rows, {}, tmp_path)
    assert 'Not run yet: 3 of 3 rows.' in report.read_text() and '|' not in report.read_text()
    assert list((tmp_path / 'images').iterdir()) == []
    assert '![' not in report.read_text()


def test_plots_are_drawn_where_there_is_something(rows, results, tmp_path):
    text = write_report(rows, results, tmp_path).read_text()
    names = ['accuracy_changes.png', 'accuracy_main.png']
    assert sorted(path.name for path in (tmp_path / 'images').iterdir()) == names
    for name in names:
        assert imread(tmp_path / 'images' / name).std() > 0
        assert f'](images/{name})' in text


class TestPage:

    @pytest.fixture
    def report(self, rows, results, tmp_path):
        return write_report(rows, results, tmp_path / 'report')

    def test_only_what_is_between_the_markers_changes(self, report, tmp_path):
        page = tmp_path / 'docs' / 'accuracy.md'
        page.parent.mkdir()
        page.write_text(f'# By hand\n\n{MARKERS[0]}\nold\n{MARKERS[1]}\n\nAlso by hand\n')
        for _ in range(2):
            update_page(page, report)
            assert page.read_text() == (f'# By hand\n\n{MARKERS[0]}\n\n{report.read_text()}\n'
                                        f'{MARKERS[1]}\n\nAlso by hand\n')
        assert (page.parent / 'accuracy.json').read_text() == (report.parent /
                                                               'accuracy.json').read_text()
        assert (page.parent / 'images' / 'accuracy_main.png').is_file()

    @pytest.mark.parametrize('text', ['', MARKERS[0], f'{MARKERS[1]}\n{MARKERS[0]}'])
    def test_a_page_without_markers_is_refused(self, report, tmp_path, text):
        page = tmp_path / 'page.md'
        page.write_text(text)
        with pytest.raises(ValueError, match='page.md needs the lines <!--'):
            update_page(page, report)
        assert page.read_text() == text


def test_values_are_percent(results):
    assert values(results, 'changed') == {0: pytest.approx(31)}
    assert values(results, 'unknown') == {}


class FakeRun:

    def __init__(self, row, seed, results, stale=False):
        self.row, self.seed, self.results, self.stale = row, seed, results, stale

    def check_settings(self):
        if self.stale:
            raise study_report.StaleRunError


def test_results_of_other_settings_and_unfinished_runs_are_left_out(rows):
    low = rows['low']
    runs = [FakeRun(low, 0, 'good'), FakeRun(low, 1, 'stale', stale=True), FakeRun(low, 2, None)]
    assert read_results(runs) == dict(low={0: 'good'})
