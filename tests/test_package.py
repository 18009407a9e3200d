"""What the built packages carry, and what MMEngine finds through the installed one."""
from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config, get_model

import mmaqd
from mmaqd.compat.versions import ONEDL, OPENMMLAB

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py'
# Sources of a build; leaving the rest out keeps what earlier builds left behind from being packed.
SOURCES = ('mmaqd', 'configs', 'tools', 'model-index.yml', 'setup.cfg', 'pyproject.toml', 'LICENSE',
           'README.md')


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the sources, symbolic links kept, as a fresh clone has them."""
    copy = tmp_path_factory.mktemp('source')
    for name in SOURCES:
        if (ROOT / name).exists():
            subprocess.run(['cp', '-a', ROOT / name, copy], check=True)
    for cache in copy.rglob('__pycache__'):
        subprocess.run(['rm', '-r', cache], check=True)
    return copy


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a package without the network and return its file."""
    code = ('import sys; from setuptools import build_meta; '
            f'print(build_meta.build_{kind}(sys.argv[1]))')
    done = subprocess.run([sys.executable, '-c', code, out],
                          cwd=source,
                          capture_output=True,
                          text=True,
                          env={
                              **os.environ, 'PYTHONPATH': ''
                          })
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def files_in(source: Path, folder: str, pattern: str = '*') -> set[str]:
    """The files below a folder, by their paths from the root."""
    return {
        path.relative_to(source).as_posix()
        for path in (source / folder).rglob(pattern) if path.is_file() and '.mim' not in path.parts
    }


@pytest.mark.parametrize('through_sdist', [False, True], ids=['from-tree', 'from-sdist'])
def test_wheel_carries_configs_and_tools(source, tmp_path, through_sdist):
    tree = source
    if through_sdist:
        with tarfile.open(build('sdist', source, tmp_path)) as archive:
            assert not [member for member in archive.getmembers() if member.issym()]
            archive.extractall(tmp_path, filter='data')
        tree = next(tmp_path.glob('mmaqd-*/'))
    wheel = zipfile.ZipFile(build('wheel', tree, tmp_path))
    in_wheel = {name for name in wheel.namelist() if not name.startswith('mmaqd-')}
    mim = {'model-index.yml'} | files_in(source, 'configs') | files_in(source, 'tools')
    mim -= files_in(source, 'tools/benchmarks')
    assert in_wheel == files_in(source, 'mmaqd', '*.py') | {f'mmaqd/.mim/{name}' for name in mim}
    script = wheel.getinfo('mmaqd/.mim/tools/dist_train.sh')
    assert script.external_attr >> 16 & 0o111, 'the scripts must stay executable'


def test_dependencies_bring_neither_torch_nor_a_stack(source, tmp_path):
    wheel = zipfile.ZipFile(build('wheel', source, tmp_path))
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith('METADATA'))).decode()
    required = [
        line.split()[1] for line in metadata.splitlines()
        if line.startswith('Requires-Dist') and 'extra ==' not in line
    ]
    names = {requirement.split('<')[0].split('>')[0] for requirement in required}
    assert names == {'numpy', 'safetensors', 'setuptools'}
    assert f'Version: {mmaqd.__version__}' in metadata


@pytest.mark.parametrize('extra, stack', [('openmmlab', OPENMMLAB), ('onedl', ONEDL),
                                          ('mim', OPENMMLAB)])
def test_extras_of_the_stacks_are_what_the_import_accepts(extra, stack):
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    packages = {stack.mmengine, stack.mmdet} | ({stack.mmcv} if extra == 'mim' else set())
    listed = [line for line in config['options.extras_require'][extra].split() if line]
    assert {name_and_numbers(line) for line in listed} == \
        {name_and_numbers(package.specifier) for package in packages}


def name_and_numbers(specifier: str) -> str:
    """A requirement without the zeros at the end of its versions: 4.0.0 is 4."""
    return re.sub(r'(\.0)+(?=,|$)', '', specifier)


def test_links_of_the_tree_lead_to_its_files():
    for name in ('configs', 'tools', 'model-index.yml'):
        link = ROOT / 'mmaqd' / '.mim' / name
        assert link.is_symlink() and link.resolve() == ROOT / name


def test_config_by_package_name(tmp_path):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'mmaqd::{CONFIG}'\n")
    assert Config.fromfile(mine).model.type == 'mmaqd.QuantizedDetector'


def test_hub_gives_config_and_model():
    config = get_config(f'mmaqd::{CONFIG}')
    assert config.model.detector == 'RetinaNet'
    model = get_model(f'mmaqd::{CONFIG}')
    assert type(model).__name__ == 'RetinaNet'


def test_public_names():
    assert all(hasattr(mmaqd, name) for name in mmaqd.__all__)
