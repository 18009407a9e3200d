"""Runs a list of stages so that it can be interrupted at any time; knows nothing of what they do.

A record on disk says which stages have begun and which are finished. Each stage is recorded with
the fingerprint of what it depends on, so that a stage whose settings changed runs again, and every
stage after it too.
"""
from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Args:
        name: Unique name, by which the stage is recorded.
        title: What the stage does, for the person who watches.
        action: Does the work. Called again after an interruption, it goes on
            where it was or starts over; either way it ends with the stage done.
        reset: Removes what an earlier ``action`` left; called before
            ``action`` unless that was begun with the same settings.
        is_intact: Whether the products of a finished stage are still there.
        settings: What the products depend on, as JSON can hold it.
    """

    name: str
    title: str
    action: Callable[[], None]
    reset: Callable[[], None] = lambda: None
    is_intact: Callable[[], bool] = lambda: True
    settings: Any = field(default_factory=dict)


def run_stages(stages: Sequence[Stage],
               record: str | Path,
               report: Callable[[str], None] = print) -> list[str]:
    """Run the stages in order, but those that an earlier call finished.

    A stage runs when it is not recorded as finished with the same settings, when its products are
    gone, or when a stage before it ran.

    Args:
        stages: Stages with distinct names.
        record: JSON file that remembers; made when missing.
        report: Takes one line of progress per stage.

    Returns:
        Names of the stages that ran.

    Raises:
        ValueError: If two stages share a name, or the record is no record of stages.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f'run_stages: the names of stages must differ, got {names}.')
    book = _Record(Path(record))
    ran: list[str] = []
    fingerprint = ''
    for number, stage in enumerate(stages, start=1):
        fingerprint = _fingerprint(stage, fingerprint)
        line = f'[{number}/{len(stages)}] {stage.title}'
        if not ran and book.is_finished(stage.name, fingerprint) and stage.is_intact():
            report(f'{line}: done before')
            continue
        report(line)
        if not book.has_begun(stage.name, fingerprint):
            stage.reset()
        book.begin(stage.name, fingerprint, stale=names[number:])
        stage.action()
        book.finish(stage.name)
        ran.append(stage.name)
    return ran


class _Record:
    """What is known of the stages: fingerprint and whether finished, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = self._read()

    def has_begun(self, name: str, fingerprint: str) -> bool:
        return self.entries.get(name, {}).get('fingerprint') == fingerprint

    def is_finished(self, name: str, fingerprint: str) -> bool:
        return self.has_begun(name, fingerprint) and self.entries[name]['finished']

    def begin(self, name: str, fingerprint: str, stale: Sequence[str]) -> None:
        """Note that a stage begins, by which the ``stale`` ones lose what they stood on."""
        for later in stale:
            if later in self.entries:
                self.entries[later]['finished'] = False
        self.entries[name] = dict(fingerprint=fingerprint, finished=False)
        self._write()

    def finish(self, name: str) -> None:
        self.entries[name]['finished'] = True
        self._write()

    def _read(self) -> dict[str, dict]:
        if not self.path.is_file():
            return {}
        try:
            entries = json.loads(self.path.read_text())
            if all({'fingerprint', 'finished'} <= set(entry) for entry in entries.values()):
                return entries
        except (json.JSONDecodeError, AttributeError, TypeError):
            pass
        raise ValueError(f'{self.path} is no record of stages. Remove it, or start over with '
                         '--fresh.')

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.entries)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, so that a kill leaves the old content or the new one."""
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, path)


def _fingerprint(stage: Stage, previous: str) -> str:
    """Digest of the settings of a stage and of all stages before it."""
    text = json.dumps([previous, stage.name, stage.settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
