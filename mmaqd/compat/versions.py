"""Checks at import that the packages mmaqd stands on are there, in a version that it works with.

Two families of distributions give the modules ``mmengine``, ``mmcv`` and ``mmdet``: OpenMMLab's and
their maintained forks, onedl's. What counts is the module that is imported, whoever brought it.
"""

from __future__ import annotations

import importlib
import re
import warnings
from importlib import metadata
from types import ModuleType
from typing import NamedTuple


class Range(NamedTuple):
    """Versions ``minimum <= v < below``; without an upper end if ``below`` is empty."""

    minimum: str
    below: str = ''

    def __contains__(self, version: object) -> bool:
        found = _numbers(str(version))
        return _numbers(self.minimum) <= found and (not self.below or found < _numbers(self.below))

    def __str__(self) -> str:
        return f'>={self.minimum}' + (f',<{self.below}' if self.below else '')


class Package(NamedTuple):
    """A module of a stack: the distribution that brings it, and its versions."""

    distribution: str
    versions: Range

    @property
    def specifier(self) -> str:
        """As pip writes it, for example ``onedl-mmcv>=2.3.6,<2.4``."""
        return f'{self.distribution}{self.versions}'


class Stack(NamedTuple):
    """Packages that go together: whose they are, and where each module comes from."""

    owner: str
    mmengine: Package
    mmcv: Package
    mmdet: Package

    @property
    def install_mmcv(self) -> str:
        """How to get mmcv with its operators: compiled for the torch that is there."""
        return ('pip install "setuptools>=80,<82" wheel ninja && '
                f'pip install --no-build-isolation "{self.mmcv.specifier}"')

    @property
    def install(self) -> str:
        """How to get all of it."""
        return (f'{self.install_mmcv} "{self.mmengine.specifier}" && '
                f'pip install "{self.mmdet.specifier}"')


TORCH = Package('torch', Range('2.1'))
OPENMMLAB = Stack(
    owner='OpenMMLab',
    mmengine=Package('mmengine', Range('0.10', '1.0')),
    mmcv=Package('mmcv', Range('2.0.0', '2.2.0')),
    mmdet=Package('mmdet', Range('3.0.0', '4.0.0')))
ONEDL = Stack(
    owner='onedl',
    mmengine=Package('onedl-mmengine', Range('0.10.12', '1.0')),
    mmcv=Package('onedl-mmcv', Range('2.3.6', '2.4')),
    mmdet=Package('onedl-mmdetection', Range('3.5.1', '3.6')))
STACKS = (OPENMMLAB, ONEDL)


def check_versions() -> None:
    """Check torch, that one stack is there whole, and that mmcv has its compiled operators.

    Raises:
        ImportError: A package is missing, too old, too new or of the other stack, or mmcv was
            installed without its operators. The message says what was found, what is needed and
            what to install.
    """
    _check('torch', TORCH)
    _import('mmengine', _install_either())  # mmcv imports it
    stack = _stack_of(_import('mmcv', _install_either()))
    _check('mmengine', stack.mmengine)
    _check_mmdet(stack)
    _check_operators(stack)
    _warn_of_two_stacks()


def _warn_of_two_stacks() -> None:
    """Warn where distributions of both stacks wrote the same files, of which pip says nothing."""
    names = [[getattr(stack, module).distribution for module in ('mmengine', 'mmcv', 'mmdet')]
             for stack in STACKS]
    both = [f'{a} and {b}' for a, b in zip(*names) if _is_installed(a) and _is_installed(b)]
    if both:
        every = ' '.join(name for stack in names for name in stack)
        warnings.warn(
            f'{", ".join(both)} are installed into the same files, and what is imported may be a '
            f'mixture. Have one stack: pip uninstall -y {every}, then {_install_either()}')


def _is_installed(distribution: str) -> bool:
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def _check(module: str, package: Package, remark: str = '') -> None:
    """Raise an ImportError unless the package is there in one of its versions."""
    install = f'pip install "{package.specifier}"'
    found = _import(module, install)
    if found.__version__ not in package.versions:
        raise ImportError(f'mmaqd needs {module}{package.versions}{remark}, but '
                          f'{_found(found)}. Install another one: {install}')


def _stack_of(mmcv: ModuleType) -> Stack:
    """The stack that the imported mmcv is of."""
    for stack in STACKS:
        if mmcv.__version__ in stack.mmcv.versions:
            return stack
    ranges = ' or '.join(f'mmcv{stack.mmcv.versions} of {stack.owner}' for stack in STACKS)
    raise ImportError(f'mmaqd needs {ranges}, but {_found(mmcv)}. Remove it (pip uninstall -y mmcv '
                      f'onedl-mmcv), then {_install_either()}')


def _check_mmdet(stack: Stack) -> None:
    """Raise an ImportError unless mmdet is one that goes with the stack's mmcv."""
    try:
        _check('mmdet', stack.mmdet, f' beside {stack.owner}\'s mmcv')
    except AssertionError as error:  # how OpenMMLab's mmdet refuses the mmcv of another stack
        raise ImportError(
            f'mmdet does not take the mmcv that is installed ({error}) Have all of one stack; '
            f'remove mmdet (pip uninstall -y mmdet), then: pip install "{stack.mmdet.specifier}"'
        ) from None


def _check_operators(stack: Stack) -> None:
    """Raise an ImportError unless the compiled operators of mmcv can be loaded."""
    try:
        importlib.import_module('mmcv.ops')
    except (ImportError, AssertionError) as error:  # an operator that another mmcv's file lacks
        raise ImportError(
            f'mmcv is installed, but its compiled operators cannot be loaded ({error}). It was '
            'built without them or for another torch. Build it again for the torch that is '
            f'installed: pip uninstall -y mmcv mmcv-lite onedl-mmcv && '
            f'{stack.install_mmcv.replace("--no-build", "--no-cache-dir --no-build")}') from error


def _import(module: str, install: str) -> ModuleType:
    """Import a module, or raise an ImportError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f'mmaqd needs {module}, but {module} is not installed. '
                          f'Install it: {install}') from None


def _install_either() -> str:
    """One sentence: what to install for either stack."""
    return ', or '.join(f'for {stack.owner}\'s: {stack.install}' for stack in STACKS)


def _found(module: ModuleType) -> str:
    return f'{module.__name__} {module.__version__} is installed ({module.__file__})'


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without suffixes: '2.13.0+cpu' gives (2, 13, 0)."""
    numbers = [int(n) for n in re.findall(r'\d+', version.split('+')[0])[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))
