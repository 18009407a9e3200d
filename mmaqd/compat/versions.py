"""Checks at import that the packages mmaqd stands on are there, in a version that it works with."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import NamedTuple


class Requirement(NamedTuple):
    """One package: importable name, versions ``minimum <= v < below``, how to install it."""

    module: str
    minimum: str
    below: str
    install: str

    @property
    def specifier(self) -> str:
        """The versions as pip writes them, for example ``mmcv>=2.0.0,<2.2.0``."""
        return f'{self.module}>={self.minimum}' + (f',<{self.below}' if self.below else '')


_INSTALL_MMCV = ('pip install "setuptools<82" wheel ninja && '
                 'pip install --no-build-isolation "mmcv>=2.0.0,<2.2.0"')

# The order matters: mmdet refuses an unsuitable mmcv by a bare assertion when it is imported.
REQUIREMENTS = (
    Requirement('torch', '2.1', '', 'pip install "torch>=2.1"'),
    Requirement('mmengine', '0.10', '1.0', 'pip install "mmengine>=0.10,<1.0"'),
    Requirement('mmcv', '2.0.0', '2.2.0', _INSTALL_MMCV),
    Requirement('mmdet', '3.0.0', '4.0.0', 'pip install "mmdet>=3.0.0,<4.0.0"'),
)


def check_versions() -> None:
    """Check every requirement, and that mmcv has its compiled operators.

    Raises:
        ImportError: A package is missing, too old or too new, or mmcv was installed without its
            operators. The message says what was found, what is needed and what to install.
    """
    for requirement in REQUIREMENTS:
        _check(requirement)
    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        raise ImportError(
            f'mmcv is installed, but its compiled operators cannot be loaded ({error}). It was '
            'built without them or for another torch. Build it again for the torch that is '
            'installed: pip uninstall -y mmcv mmcv-lite && '
            f'{_INSTALL_MMCV.replace("--no-build", "--no-cache-dir --no-build")}') from error


def _check(requirement: Requirement) -> None:
    """Raise an ImportError unless the requirement is met."""
    try:
        module = importlib.import_module(requirement.module)
    except ModuleNotFoundError as error:
        if error.name != requirement.module:
            raise
        raise ImportError(f'mmaqd needs {requirement.specifier}, but {requirement.module} is not '
                          f'installed. Install it: {requirement.install}') from None
    if not _suits(module, requirement):
        raise ImportError(
            f'mmaqd needs {requirement.specifier}, but {requirement.module} {module.__version__} '
            f'is installed ({module.__file__}). Install another one: {requirement.install}')


def _suits(module: ModuleType, requirement: Requirement) -> bool:
    """Whether the version of an imported module is inside the requirement's range."""
    found = _numbers(module.__version__)
    if found < _numbers(requirement.minimum):
        return False
    return not requirement.below or found < _numbers(requirement.below)


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without suffixes: '2.13.0+cpu' gives (2, 13, 0)."""
    numbers = [int(n) for n in re.findall(r'\d+', version.split('+')[0])[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))
