"""Where configs lie on the disk: ours and those of the installed MMDetection.

Both functions are meant for the ``_base_`` line of a config, which MMEngine evaluates before
anything else, ``_base_ = __import__('mmaqd').config_path('retinanet/...py')``. They need no
``pkg_resources`` and are right for a wheel and for an editable install.
"""
from __future__ import annotations

import re
import warnings
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

_BATCH = re.compile(r'_\d+xb\d+-')


def config_path(relative: str) -> str:
    """Gives the path of one of our configs.

    Args:
        relative: Path below our ``configs`` folder, with forward slashes, such as
            ``'retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'``.

    Returns:
        The absolute path of the file.

    Raises:
        FileNotFoundError: There is no such config; the message names the closest ones.
    """
    return _find(relative, 'mmaqd')


def upstream_config_path(relative: str) -> str:
    """Gives the path of a config that comes with the installed MMDetection.

    Args:
        relative: Path below MMDetection's ``configs`` folder, with forward slashes, such as
            ``'retinanet/retinanet_r18_fpn_1x_coco.py'``.

    Returns:
        The absolute path of the file.

    Raises:
        FileNotFoundError: There is no such config; the message names the closest ones.
    """
    return _find(relative, 'mmdet')


def current_config(path: str) -> str:
    """The path of a config of ours that may be named as before 0.3, without its batch.

    Args:
        path: Path of any config.

    Returns:
        The path as it is; where there is no such file but one beside it with the batch in its name
        (``..._1xb8-12e_bccd.py`` for ``..._12e_bccd.py``) the path of that, with a warning.
    """
    old = Path(path)
    if old.is_file() or not old.parent.is_dir():
        return path
    for new in sorted(old.parent.glob('*.py')):
        if _BATCH.sub('_', new.name) == old.name:
            warnings.warn(
                f'The config {old.name} is called {new.name} now: names tell the batch. '
                'The old name will go in 0.4.',
                FutureWarning,
                stacklevel=2)
            return str(new)
    return path


def _find(relative: str, package: str) -> str:
    root = _configs_of(package)
    path = Path(current_config(str(root / relative)))
    if not path.is_file():
        raise FileNotFoundError(_not_found(relative, package, root))
    return str(path)


def _configs_of(package: str) -> Path:
    root = Path(find_spec(package).submodule_search_locations[0]).resolve() / '.mim' / 'configs'
    if not root.is_dir():
        raise FileNotFoundError(
            f'{package} carries no configs: there is no folder {root}. Install {package} with pip '
            f'or mim; a folder that was only put on PYTHONPATH may lack it.')
    return root


def _not_found(relative: str, package: str, root: Path) -> str:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    close = get_close_matches(relative, names, n=3, cutoff=0.5)
    hint = f'Did you mean {" or ".join(map(repr, close))}?' if close else f'They lie in {root}.'
    return (f'{package} has no config {relative!r}; expected a path below its configs folder, such '
            f"as 'retinanet/<name>.py'. {hint}")
