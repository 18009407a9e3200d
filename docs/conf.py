"""The site: Sphinx over the documents of the whole repository, and the API from docstrings.

`make docs` builds it. The sources start at the root of the repository, so that the links between
README, docs/ and configs/ are the same on the site and in the repository. The code is read, not
imported: neither torch nor MMDetection is needed.
"""
from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSION = re.search(r"'(.+)'", (ROOT / 'mmaqd' / 'version.py').read_text())[1]

project = 'mmaqd'
author = 'The mmaqd authors'
copyright = f'{author}, Apache 2.0'
version = release = VERSION
html_title = f'mmaqd {VERSION}'

extensions = ['myst_parser', 'sphinx.ext.napoleon', 'autoapi.extension', 'sphinx_copybutton']
root_doc = 'README'
include_patterns = [
    'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'docs/**', 'configs/**/*.md', 'configs/*.md'
]
exclude_patterns = ['**/.*', 'data', 'work_dirs', 'build', 'docs/_build', 'mmaqd', 'tools', 'tests']
nitpicky = False
# Constants that one hidden module imports from another; names that two packages export.
suppress_warnings = ['autoapi.python_import_resolution', 'ref.python']
napoleon_use_ivar = True
myst_heading_anchors = 4
html_theme = 'furo'
html_theme_options = dict(navigation_with_keys=True)
html_show_sphinx = False

CONTENTS = {
    'Start':
    ['docs/quick_start', 'docs/stacks', 'docs/own_data', 'docs/choosing', 'docs/demo', 'docs/faq'],
    'Guides': [
        'docs/recipes', 'docs/deployment', 'docs/packed', 'docs/analysis', 'docs/checkpoints',
        'docs/detectors', 'docs/layers', 'docs/refusals', 'docs/ecosystem'
    ],
    'How it works': ['docs/how_it_works', 'docs/integer'],
    'Results': [
        'docs/results', 'docs/benchmarks/accuracy', 'docs/benchmarks/accuracy_settings',
        'docs/benchmarks/deployment', 'docs/benchmarks/training_cost', 'docs/reliability'
    ],
    'Reference': [
        'docs/api/mmaqd/index', 'configs/README', 'configs/retinanet/README', 'configs/fcos/README',
        'configs/atss/README', 'configs/gfl/README', 'configs/vfnet/README', 'configs/tood/README',
        'configs/paa/README', 'configs/foveabox/README', 'configs/rtmdet/README',
        'configs/yolox/README', 'configs/bccd/README', 'configs/bccd/packed/README'
    ],
    'Contributing': ['CONTRIBUTING', 'CHANGELOG'],
}

autoapi_dirs = ['mmaqd']
autoapi_root = 'docs/api'
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_options = ['members', 'undoc-members', 'show-inheritance', 'imported-members']
autoapi_python_class_content = 'class'
autoapi_member_order = 'groupwise'
autoapi_ignore = ['*/.mim/*']
# What a package exports is documented there; of single modules only those that users import.
MODULES = {
    'mmaqd.engine.inference', 'mmaqd.engine.launch', 'mmaqd.engine.post_training',
    'mmaqd.export.exported', 'mmaqd.export.runtime', 'mmaqd.paths'
}


def skip_internal(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Leave out the modules whose contents their package exports."""
    return skip or (what == 'module' and name not in MODULES)


def escape_bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |x| in a docstring be an absolute value, not a substitution, and ** a power."""
    for index, line in enumerate(lines):
        parts = re.split(r'(``.+?``)', line)
        parts[::2] = [re.sub(r'(?<!\\)(\||\*\*(?=\w))', _escaped, part) for part in parts[::2]]
        lines[index] = ''.join(parts)


def _escaped(match: re.Match) -> str:
    return match[1].replace('|', '\\|').replace('*', '\\*')


def add_contents(app: Any, name: str, source: list[str]) -> None:
    """Put the table of contents, which the sidebar shows, behind the README."""
    if name != root_doc:
        return
    trees = [
        '```{toctree}\n:hidden:\n:caption: ' + f'{caption}\n' + '\n'.join(pages) + '\n```'
        for caption, pages in CONTENTS.items()
    ]
    source[0] += '\n' + '\n\n'.join(trees) + '\n'


def copy_first_page(app: Any, error: Any) -> None:
    """Let the site's address alone lead to its first page."""
    if error is None and app.builder.format == 'html':
        shutil.copy(Path(app.outdir, 'README.html'), Path(app.outdir, 'index.html'))


def setup(app: Any) -> None:
    app.connect('autoapi-skip-member', skip_internal)
    app.connect('autodoc-process-docstring', escape_bars, priority=900)
    app.connect('source-read', add_contents)
    app.connect('build-finished', copy_first_page)
