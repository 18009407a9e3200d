"""The process: how its user spells our commands, and whether an error is his Ctrl-C."""
from __future__ import annotations

import os.path as osp
import shlex
import sys
from pathlib import Path
from typing import Any, Mapping

SCRIPTS = {
    'quantize-config': 'quantize_config.py',
    'train': 'train.py',
    'test': 'test.py',
    'image-demo': 'image_demo.py',
    'calibrate': 'calibrate.py',
    'export': 'deployment/export.py',
    'detect': 'deployment/detect.py',
    'pack': 'deployment/pack.py',
    'convert': 'deployment/convert_integer.py',
    'benchmark': 'deployment/benchmark.py',
}


def command(name: str, *arguments: object) -> str:
    """The line that calls a command.

    Args:
        name: Of the command, such as ``'test'``.
        *arguments: What comes behind it.

    Returns:
        ``python .../tools/test.py ...`` in a process that a script of that folder started, else
        ``mmaqd test ...``.
    """
    tools = _tools_folder(sys.argv[0] if sys.argv else '')
    if tools is not None:
        words = ['python', osp.join(tools, SCRIPTS[name])]
    elif Path(sys.argv[0] if sys.argv else '').parts[-2:] == ('mmaqd', '__main__.py'):
        words = ['python', '-m', 'mmaqd', name]
    else:
        words = ['mmaqd', name]
    return shlex.join([*words, *map(str, arguments)])


def same_options(cfg_options: Mapping[str, Any] | None) -> list[str]:
    """The words of ``--cfg-options`` with which a command means the same config.

    Example:
        >>> same_options({'model.bbox_head.num_classes': 3})
        ['--cfg-options', 'model.bbox_head.num_classes=3']
    """
    words = [f'{key}={value}' for key, value in (cfg_options or {}).items()]
    return ['--cfg-options', *words] if words else []


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, or came of it.

    MMEngine turns Ctrl-C into a ``SyntaxError`` while it writes the config, as for a checkpoint.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _tools_folder(script: str) -> str | None:
    """The folder tools/ of a checkout that a script lies in, as short as it can be written."""
    path = Path(osp.abspath(script))
    if '.mim' in path.parts:  # installed, and so is the command
        return None
    for each in SCRIPTS.values():
        folder = Path(str(path).removesuffix(osp.normpath(each)))
        if folder != path and folder.name == 'tools':
            return min(str(folder), osp.relpath(folder), key=len)
    return None
