"""Rows as text, CSV and JSON."""
from __future__ import annotations

import csv
import json

from mmaqd.analysis import format_rows, write_rows

ROWS = [
    dict(layer='a', bits=4, error=0.123456789, macs=1234567),
    dict(layer='long name', bits=None, error=2.0, macs=8)
]


def test_columns_are_aligned():
    lines = format_rows(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if '|' in line]
    assert cells == [['layer', 'bits', 'error', 'macs'], ['a', '4', '0.1235', '1,234,567'],
                     ['long name', '-', '2', '8']]


def test_text_stands_on_the_left_and_figures_on_the_right():
    row = format_rows(ROWS).splitlines()[3]
    assert row.startswith('| a  ') and row.endswith(' 1,234,567 |')


def test_nothing_to_show():
    assert format_rows([]) == '(nothing)'


def test_files_hold_every_digit(tmp_path):
    csv_path, json_path = write_rows(ROWS, tmp_path / 'table.v1')
    assert (csv_path.name, json_path.name) == ('table.v1.csv', 'table.v1.json')
    assert json.loads(json_path.read_text()) == ROWS
    with csv_path.open() as file:
        read = list(csv.DictReader(file))
    assert [float(row['error']) for row in read] == [0.123456789, 2.0]
    assert [row['bits'] for row in read] == ['4', '']
