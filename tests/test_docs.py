"""What the documents and metafiles name is there, and their commands are those of the tools."""
from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import BLOCK, commands_of, parse_tool, script_of

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {
    '.venv', '.venv-docs', '.venv-onedl', '.git', '.mim', 'build', 'dist', 'work_dirs', 'data',
    '.pytest_cache'
}
DOCUMENTS = sorted(
    path for path in ROOT.rglob('*.md') if not SKIPPED & set(path.relative_to(ROOT).parts))
METAFILES = sorted(ROOT.glob('configs/*/metafile.yml'))
# Paths that are written out, without placeholders such as {detector}, CONFIG or <name>.
CODE_PATH = re.compile(
    r'(?<![\w/.-])((?:configs|tools|mmaqd|docs|tests)/[\w./+-]*\w\.\w+)(?![\w{<*])')
LINK = re.compile(r'\]\(([^)#\s]+)')
WITH_COMMANDS = [path for path in DOCUMENTS if '```bash' in path.read_text()]
# Words that stand for something else, and something that a parser takes for it.
PLACEHOLDERS = dict(ENGINE='openvino', H='480', W='640')
EXAMPLE = ('/path/to/', 'work_dirs/', 'data/', 'my_detector/')  # what only a user has


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


def check_python(monkeypatch, words: list[str]) -> None:
    if script_of(words) is not None:
        parse_tool(monkeypatch, [PLACEHOLDERS.get(word, word) for word in words])
    elif words[1] == '-c':
        ast.parse(words[2])
    else:
        assert words[1] == '-m' and importlib.util.find_spec(words[2]), words


def check_pip(words: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    extras = [extra for word in words for extra in re.findall(r'mmaqd\[(\w+)\]', word)]
    extras += [extra for word in words for extra in re.findall(r'^\.\[(\w+)\]$', word)]
    assert words[1] in ('install', 'uninstall'), words
    assert set(extras) <= set(config['options.extras_require']), words


def check_files(words: list[str]) -> None:
    """Paths of ours exist, whatever the command is."""
    ours = [word for word in words if re.match(r'(configs|docs|mmaqd|tests|tools)/', word)]
    missing = [word for word in ours if not (ROOT / word).exists()]
    assert not [word for word in missing if not word.startswith(EXAMPLE)], words


@pytest.mark.parametrize('document', WITH_COMMANDS, ids=name_of)
def test_commands_are_those_of_the_tools(document, monkeypatch):
    targets = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1]
    for words in commands_of(document.read_text()):
        check_files(words)
        if words[0] == 'python':
            check_python(monkeypatch, words)
        elif words[0] == 'pip':
            check_pip(words)
        elif words[0] == 'make':
            assert words[1] in targets.split()
        elif words[0] == 'mim':
            assert list(ROOT.glob(f'configs/*/{words[3]}')), words


@pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)
def test_code_can_be_read(document):
    for language, block in BLOCK.findall(document.read_text()):
        if language == 'python':
            ast.parse(block.replace(', ...)', ')'))


def test_the_site_has_every_document():
    contents = runpy.run_path(str(ROOT / 'docs' / 'conf.py'))['CONTENTS']
    pages = [page for pages in contents.values() for page in pages if 'docs/api' not in page]
    documents = [name_of(path)[:-len('.md')] for path in DOCUMENTS]
    assert sorted([*pages, 'README']) == sorted(documents)
