"""Missing, old, new and incomplete packages each give a message that says what to install."""
from __future__ import annotations

import importlib
import sys

import mmcv
import mmdet
import mmengine
import pytest
import torch

from mmaqd.compat import check_versions

MODULES = dict(torch=torch, mmengine=mmengine, mmcv=mmcv, mmdet=mmdet)


def test_installed_versions_suit():
    check_versions()


@pytest.mark.parametrize('module, version, needs, install', [
    ('torch', '2.0.1+cu118', 'torch>=2.1', 'pip install "torch>=2.1"'),
    ('mmengine', '0.9.1', 'mmengine>=0.10,<1.0', 'pip install "mmengine>=0.10'),
    ('mmengine', '1.0.0', 'mmengine>=0.10,<1.0', 'pip install "mmengine>=0.10'),
    ('mmcv', '1.7.2', 'mmcv>=2.0.0,<2.2.0', '--no-build-isolation "mmcv>=2.0.0'),
    ('mmcv', '2.2.0', 'mmcv>=2.0.0,<2.2.0', '--no-build-isolation "mmcv>=2.0.0'),
    ('mmdet', '2.28.2', 'mmdet>=3.0.0,<4.0.0', 'pip install "mmdet>=3.0.0'),
])
def test_unsuitable_version_says_what_to_install(monkeypatch, module, version, needs, install):
    monkeypatch.setattr(MODULES[module], '__version__', version)
    with pytest.raises(ImportError) as error:
        check_versions()
    message = str(error.value)
    assert f'mmaqd needs {needs}, but {module} {version} is installed' in message
    assert install in message


@pytest.mark.parametrize('module, version', [
    ('torch', '2.1'),
    ('mmengine', '0.10.0'),
    ('mmcv', '2.0.0rc4'),
    ('mmcv', '2.1.99'),
    ('mmdet', '3.99.0'),
])
def test_edges_of_the_ranges_are_accepted(monkeypatch, module, version):
    monkeypatch.setattr(MODULES[module], '__version__', version)
    check_versions()


@pytest.mark.parametrize('module', MODULES)
def test_missing_package_says_what_to_install(monkeypatch, module):
    _fail_import(monkeypatch, module, ModuleNotFoundError(f'No module {module}', name=module))
    with pytest.raises(ImportError, match=f'but {module} is not installed. Install it: pip'):
        check_versions()


def test_broken_package_keeps_its_own_error(monkeypatch):
    _fail_import(monkeypatch, 'mmdet', ModuleNotFoundError('No module other', name='other'))
    with pytest.raises(ModuleNotFoundError, match='No module other'):
        check_versions()


def test_mmcv_without_operators_says_how_to_build_them(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    with pytest.raises(ImportError, match='compiled operators.*--no-cache-dir'):
        check_versions()


def _fail_import(monkeypatch, module: str, error: Exception) -> None:
    """Let the import of one module fail."""
    real = importlib.import_module

    def import_module(name):
        if name == module:
            raise error
        return real(name)

    monkeypatch.setattr(importlib, 'import_module', import_module)
