"""Results of runs on other machines, whose folders are gone, out of an ``accuracy.json``."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Mapping

from study_report import SETTINGS, Results, settings_of
from study_rows import Row


def read_record(record: Path,
                rows: Mapping[str, Row],
                split: str,
                report: Callable[[str], None] = print) -> dict[str, dict[int, dict[str, Any]]]:
    """The recorded results of the rows as they are now.

    Args:
        record: A file that :func:`study_report.write_report` wrote.
        rows: The rows by their name.
        split: The study's split; results of another are left out.
        report: Takes a line for each recorded row that is gone or has other settings by now, whose
            results are left out.

    Returns:
        See :data:`study_report.Results`.

    Raises:
        ValueError: The file is missing or no such file.
    """
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for name, recorded in _load(record).items():
        runs = {int(seed): run for seed, run in recorded['runs'].items() if run['split'] == split}
        settings = {key: recorded[key] for key in SETTINGS}
        if name in rows and json.loads(json.dumps(settings_of(rows[name]))) == settings:
            results[name] = runs
        elif runs:
            report(f'{record}: {name} is left out, the study has no such row with these settings.')
    return results


def merge(found: Results, recorded: Results, rows: Mapping[str, Row]) -> Results:
    """Results found in the study's folder, and recorded ones of seeds that were not run there.

    Rows are compared seed by seed, as they start from the same float model. Another machine rounds
    otherwise, so its models of the same seed are others. Therefore either all rows that start from
    one model come from the folder or all from the record, never some of each.
    """
    begun = {(_origin(name, rows), seed) for name, runs in found.items() for seed in runs}
    merged = {name: dict(runs) for name, runs in found.items()}
    for name, runs in recorded.items():
        kept = {seed: run for seed, run in runs.items() if (_origin(name, rows), seed) not in begun}
        merged.setdefault(name, {}).update(kept)
    return merged


def _origin(name: str, rows: Mapping[str, Row]) -> str:
    """Name of the row that nothing comes before."""
    while rows[name].start:
        name = rows[name].start
    return name


def _load(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'--record: {record} can not be read: {error}') from error
    wanted = {*SETTINGS, 'runs'}
    if isinstance(content, dict) and all(
            isinstance(row, dict) and wanted <= set(row) for row in content.values()):
        return content
    raise ValueError(f'--record: {record} is no accuracy.json that this study wrote: each row '
                     f'needs {", ".join(sorted(wanted))}.')
