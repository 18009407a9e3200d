"""What the documents and metafiles name is there."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {'.venv', '.git', '.mim', 'build', 'dist', 'work_dirs', 'data', '.pytest_cache'}
DOCUMENTS = sorted(
    path for path in ROOT.rglob('*.md') if not SKIPPED & set(path.relative_to(ROOT).parts))
METAFILES = sorted(ROOT.glob('configs/*/metafile.yml'))
# Paths that are written out, without placeholders such as {detector}, CONFIG or <name>.
CODE_PATH = re.compile(
    r'(?<![\w/.-])((?:configs|tools|mmaqd|docs|tests)/[\w./+-]*\w\.\w+)(?![\w{<*])')
LINK = re.compile(r'\]\(([^)#\s]+)')


def name_of(path: Path) -> str:
    """The path from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    links = [link for link in LINK.findall(document.read_text()) if ':' not in link]
    assert not [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)
def test_paths_exist(document):
    assert not [
        path for path in CODE_PATH.findall(document.read_text())
        if not (ROOT / path).exists() and not (document.parent / path).exists()
    ]


def test_model_index_lists_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [name_of(path) for path in METAFILES]


@pytest.mark.parametrize('metafile', METAFILES, ids=name_of)
def test_metafile_names_configs_and_documents_that_exist(metafile):
    content = yaml.safe_load(metafile.read_text())
    named = [model['Config'] for model in content['Models']]
    named += [collection['README'] for collection in content['Collections']]
    floats = [model['Float Model'] for model in content['Models'] if 'Float Model' in model]
    named += [model['Config'] for model in floats]
    assert named and not [path for path in named if not (ROOT / path).is_file()]


@pytest.mark.parametrize('metafile', METAFILES, ids=name_of)
def test_metafile_lists_every_config_of_its_folder(metafile):
    content = yaml.safe_load(metafile.read_text())
    configs = {name_of(path) for path in metafile.parent.glob('*.py')}
    assert {model['Config'] for model in content['Models']} == configs
    assert all(Path(model['Config']).stem == model['Name'] for model in content['Models'])
