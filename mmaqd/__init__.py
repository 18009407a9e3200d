"""AQD: low-bit object detectors for MMDetection, by config alone.

Importing the package checks the versions of what it stands on, makes checkpoints loadable with
``weights_only=True``, and registers every module under the scope ``mmaqd``. Only the command
``mmaqd`` puts that off until it is needed: its help and ``mmaqd detect`` do without torch.
"""
import sys
from pathlib import PurePath


def _is_command() -> bool:
    """Whether this process is the command: ``mmaqd`` or ``python -m mmaqd``."""
    script, line = sys.argv[0] if sys.argv else '', sys.orig_argv
    if script == '-m':  # as long as Python looks for the module
        return ('-m', 'mmaqd') in zip(line, line[1:])
    return PurePath(script).name in ('mmaqd', 'mmaqd.exe')


if not _is_command():
    from mmaqd.api import *  # noqa: F401, F403
    from mmaqd.api import __all__, __version__  # noqa: F401
