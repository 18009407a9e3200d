"""Missing, old, new and incomplete packages each give a message that says what to install."""
from __future__ import annotations

import importlib
import sys

import mmcv
import mmdet
import mmengine
import pytest
import torch

from mmaqd.compat import check_versions, versions

MODULES = dict(torch=torch, mmengine=mmengine, mmcv=mmcv, mmdet=mmdet)


def test_installed_versions_suit():
    check_versions()


# Of both stacks, whichever the tests run on: mmcv's version says which one is there.
OPENMMLAB = dict(mmengine='0.10.7', mmcv='2.1.0', mmdet='3.3.0')
ONEDL = dict(mmengine='0.10.12', mmcv='2.3.6', mmdet='3.5.1')
ONEDL_MMCV = '--no-build-isolation "onedl-mmcv>=2.3.6,<2.4"'


def pretend(monkeypatch, **versions: str) -> None:
    """Let imported modules have these versions."""
    for module, version in versions.items():
        monkeypatch.setattr(MODULES[module], '__version__', version)


@pytest.mark.parametrize('stack', [OPENMMLAB, ONEDL], ids=['openmmlab', 'onedl'])
def test_both_stacks_are_accepted(monkeypatch, stack):
    pretend(monkeypatch, **stack)
    check_versions()


@pytest.mark.parametrize('stack, module, version, needs, install', [
    (OPENMMLAB, 'torch', '2.0.1+cu118', 'torch>=2.1', 'pip install "torch>=2.1"'),
    (OPENMMLAB, 'mmengine', '0.9.1', 'mmengine>=0.10,<1.0', 'pip install "mmengine>=0.10'),
    (OPENMMLAB, 'mmengine', '1.0.0', 'mmengine>=0.10,<1.0', 'pip install "mmengine>=0.10'),
    (OPENMMLAB, 'mmdet', '2.28.2', 'mmdet>=3.0.0,<4.0.0', 'pip install "mmdet>=3.0.0'),
    (ONEDL, 'mmengine', '0.10.7', 'mmengine>=0.10.12,<1.0', 'pip install "onedl-mmengine>=0.10.12'),
    (ONEDL, 'mmdet', '3.3.0', 'mmdet>=3.5.1,<3.6', 'pip install "onedl-mmdetection>=3.5.1,<3.6"'),
    (ONEDL, 'mmdet', '3.6.0', 'mmdet>=3.5.1,<3.6', 'pip install "onedl-mmdetection>=3.5.1,<3.6"'),
])
def test_unsuitable_version_says_what_to_install(monkeypatch, stack, module, version, needs,
                                                 install):
    pretend(monkeypatch, **{**stack, module: version})
    with pytest.raises(ImportError) as error:
        check_versions()
    message = str(error.value)
    assert f'mmaqd needs {needs}' in message
    assert f'but {module} {version} is installed' in message
    assert install in message


@pytest.mark.parametrize('version', ['1.7.2', '2.2.0', '2.3.5', '2.4.0'])
def test_mmcv_of_neither_stack_names_both(monkeypatch, version):
    pretend(monkeypatch, mmcv=version)
    with pytest.raises(ImportError) as error:
        check_versions()
    message = str(error.value)
    assert 'mmcv>=2.0.0,<2.2.0 of OpenMMLab or mmcv>=2.3.6,<2.4 of onedl' in message
    assert f'but mmcv {version} is installed' in message
    assert '--no-build-isolation "mmcv>=2.0.0,<2.2.0"' in message and ONEDL_MMCV in message


@pytest.mark.parametrize('stack, module, version', [
    (OPENMMLAB, 'torch', '2.1'),
    (OPENMMLAB, 'mmengine', '0.10.0'),
    (OPENMMLAB, 'mmcv', '2.0.0rc4'),
    (OPENMMLAB, 'mmcv', '2.1.99'),
    (OPENMMLAB, 'mmdet', '3.99.0'),
    (ONEDL, 'mmengine', '0.99.0'),
    (ONEDL, 'mmcv', '2.3.99'),
    (ONEDL, 'mmdet', '3.5.99'),
])
def test_edges_of_the_ranges_are_accepted(monkeypatch, stack, module, version):
    pretend(monkeypatch, **{**stack, module: version})
    check_versions()


@pytest.mark.parametrize('module', MODULES)
def test_missing_package_says_what_to_install(monkeypatch, module):
    _fail_import(monkeypatch, module, ModuleNotFoundError(f'No module {module}', name=module))
    with pytest.raises(ImportError, match=f'but {module} is not installed. Install it: .*pip'):
        check_versions()


@pytest.mark.parametrize('module', ['mmengine', 'mmcv'])
def test_nothing_installed_names_both_stacks(monkeypatch, module):
    _fail_import(monkeypatch, module, ModuleNotFoundError(f'No module {module}', name=module))
    with pytest.raises(ImportError) as error:
        check_versions()
    assert '"mmdet>=3.0.0,<4.0.0"' in str(error.value)
    assert '"onedl-mmdetection>=3.5.1,<3.6"' in str(error.value)


def test_mmdet_that_refuses_the_mmcv_of_the_other_stack(monkeypatch):
    pretend(monkeypatch, **ONEDL)
    _fail_import(monkeypatch, 'mmdet', AssertionError('MMCV==2.3.6 is used but incompatible.'))
    with pytest.raises(ImportError, match='incompatible.*pip install "onedl-mmdetection'):
        check_versions()


def test_broken_package_keeps_its_own_error(monkeypatch):
    _fail_import(monkeypatch, 'mmdet', ModuleNotFoundError('No module other', name='other'))
    with pytest.raises(ModuleNotFoundError, match='No module other'):
        check_versions()


@pytest.mark.parametrize('stack, name', [(OPENMMLAB, 'mmcv'), (ONEDL, 'onedl-mmcv')])
def test_mmcv_without_operators_says_how_to_build_them(monkeypatch, stack, name):
    pretend(monkeypatch, **stack)
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    with pytest.raises(ImportError, match=f'operators.*--no-cache-dir .*isolation "{name}>='):
        check_versions()


def test_operators_of_another_mmcv_are_to_be_built_again(monkeypatch):
    _fail_import(monkeypatch, 'mmcv.ops', AssertionError('line_nms_forward miss in module _ext'))
    with pytest.raises(ImportError, match='line_nms_forward miss.*Build it again'):
        check_versions()


def _fail_import(monkeypatch, module: str, error: Exception) -> None:
    """Let the import of one module fail."""
    real = importlib.import_module

    def import_module(name):
        if name == module:
            raise error
        return real(name)

    monkeypatch.setattr(importlib, 'import_module', import_module)


@pytest.mark.parametrize('installed, told', [
    ((), None),
    (('mmcv', 'mmengine', 'mmdet'), None),
    (('mmcv', 'onedl-mmengine', 'onedl-mmdetection'), None),
    (('mmcv', 'onedl-mmcv', 'mmengine', 'onedl-mmengine'),
     'mmengine and onedl-mmengine, mmcv and onedl-mmcv are installed into the same files'),
])
def test_two_stacks_in_one_place_are_told(monkeypatch, recwarn, installed, told):
    monkeypatch.setattr(versions, '_is_installed', lambda distribution: distribution in installed)
    check_versions()
    found = [str(each.message) for each in recwarn if 'same files' in str(each.message)]
    assert bool(found) == bool(told)
    if told:
        assert found[0].startswith(
            told) and 'pip uninstall -y mmengine mmcv mmdet onedl-mmengine' in found[0]


def test_what_is_installed_is_asked_of_the_metadata():
    assert versions._is_installed('torch')
    assert not versions._is_installed('no-such-distribution')
