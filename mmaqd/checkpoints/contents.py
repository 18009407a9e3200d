"""What a checkpoint may hold besides weights, and what becomes of the rest.

MMEngine takes text and paths from checkpoints: it runs ``meta['config']`` when it resumes, and
``message_hub['runtime_info']['cfg']`` or ``meta['cfg']`` for an inferencer without a config. A
checkpoint comes from anywhere, so that text is never handed on in a form that runs.
"""
from __future__ import annotations

from collections import OrderedDict
from typing import Any, Mapping

import torch

from .errors import REPLACE, CheckpointError

#: Keys of a checkpoint that are states of modules.
STATES = ('state_dict', 'ema_state_dict')
_RUN_INSTEAD = (
    "raise RuntimeError('The config that a checkpoint brings is Python text, and it is not run: "
    "give the config too, such as DetInferencer(model=CONFIG, weights=CHECKPOINT).')\n")


class StateMetadata(OrderedDict):
    """The ``_metadata`` of a state dict that came through a loader, which knows the file.

    torch and MMEngine hand ``metadata.get(prefix, {})`` to each module as ``local_metadata``; so a
    check inside a module learns of the file, and that the state is meant to be a whole one. Copied
    or saved it is an ordinary OrderedDict.
    """

    file: str | None = None

    def get(self, key: str, default: Any = None) -> dict:
        return {**(super().get(key) or default or {}), 'loaded': True, 'file': self.file}

    def __reduce__(self) -> tuple:
        return OrderedDict, (), None, None, iter(self.items())


def mark_as_loaded(state: Mapping[str, Any], file: str | None) -> OrderedDict:
    """A shallow copy of a state dict that tells where it came from; the file may be unknown."""
    marked = OrderedDict(state)
    given = getattr(state, '_metadata', None)
    marked._metadata = StateMetadata(given if isinstance(given, dict) else {})
    marked._metadata.file = file or file_of(state)
    return marked


def file_of(state: Mapping[str, Any]) -> str | None:
    """The file that a state dict was read from, as far as it is known."""
    return getattr(getattr(state, '_metadata', None), 'file', None)


def safe_content(content: Any, path: str) -> dict:
    """Check the layout of what a file held, and take the text out that MMEngine would run.

    ``meta['config']`` and ``message_hub['runtime_info']['cfg']`` are dropped, the lines of
    ``meta['cfg']`` become comments behind one that raises.

    Args:
        content: What was read; changed in place.
        path: File that it was read from, for messages.

    Raises:
        CheckpointError: It is no dict, or a part of it is not what MMEngine writes there.
    """
    _expect(content, dict, 'the file', path)
    for key in ('meta', 'message_hub'):
        if content.get(key, ...) is None:
            del content[key]
        _expect(content.get(key, {}), dict, key, path)
    for key in STATES:
        if key in content:
            _check_state(content[key], key, path)
            content[key] = mark_as_loaded(content[key], path)
    _take_text_out(content, path)
    return content if 'state_dict' in content else mark_as_loaded(content, path)


def _check_state(state: Any, name: str, path: str) -> None:
    _expect(state, dict, name, path)
    for key, value in state.items():
        _expect(key, str, f'the key {key!r} of {name}', path)
        if not key.endswith('_extra_state'):
            _expect(value, torch.Tensor, f'{name}[{key!r}]', path)


def _take_text_out(content: dict, path: str) -> None:
    meta = content.get('meta', {})
    meta.pop('config', None)
    if 'cfg' in meta:
        lines = str(meta['cfg']).replace(_RUN_INSTEAD, '').splitlines()
        comments = [line if line.startswith('#') else f'# {line}' for line in lines]
        meta['cfg'] = _RUN_INSTEAD + '\n'.join(comments)
    if meta.get('dataset_meta', ...) is None:
        del meta['dataset_meta']
    dataset_meta = _expect(meta.get('dataset_meta', {}), dict, 'meta.dataset_meta', path)
    for key in dataset_meta:
        _expect(key, str, f'the key {key!r} of meta.dataset_meta', path)
    hub = content.get('message_hub', {})
    _expect(hub.get('runtime_info', {}), dict, 'message_hub.runtime_info', path).pop('cfg', None)


def _expect(value: Any, kind: type, what: str, path: str) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(
            f'Checkpoint {path!r} is not as MMEngine or torch write one, {what} is '
            f'{_a(type(value).__name__)}, expected {_a(kind.__name__)}: {REPLACE}')
    return value


def _a(noun: str) -> str:
    return f'{"an" if noun[0] in "aeiouAEIOU" else "a"} {noun}'
