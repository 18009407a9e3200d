"""Rows of figures as aligned text, CSV and JSON."""
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Mapping, Sequence

from terminaltables import AsciiTable

Row = Mapping[str, Any]


def format_rows(rows: Sequence[Row]) -> str:
    """Rows as an aligned table for the console.

    Args:
        rows: Values by the title of their column, the same titles in every row.

    Returns:
        Several lines; floats have four significant digits, None is shown as ``-``.
    """
    if not rows:
        return '(nothing)'
    table = AsciiTable([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])
    for column, value in enumerate(rows[0].values()):
        if not isinstance(value, str):
            table.justify_columns[column] = 'right'
    return table.table


def write_rows(rows: Sequence[Row], stem: str | Path) -> list[Path]:
    """Write rows as ``<stem>.csv`` and ``<stem>.json``, numbers in full.

    Args:
        rows: Values by the title of their column, at least one row.
        stem: Path without an ending, in an existing folder.

    Returns:
        The files.
    """
    csv_path, json_path = Path(f'{stem}.csv'), Path(f'{stem}.json')
    with csv_path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    json_path.write_text(json.dumps(list(rows), indent=1) + '\n')
    return [csv_path, json_path]


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.4g}'
    return f'{value:,}' if isinstance(value, int) else str(value)
