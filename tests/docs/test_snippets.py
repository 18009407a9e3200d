"""Every piece of Python in the documents is run: as a config, as a part of one, or as code."""
from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import ATSSHead
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from torch import nn

from mmaqd.conversion import prepare, quantization_table
from mmaqd.layers import MultiLevelBN
from mmaqd.models import MultiLevelHeadMixin
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS
from tests.helpers.commands import BLOCK, ROOT
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, make_batch, model_cfg
from tests.helpers.runs import make_runner

# Pages whose code a test of their own takes from the page and runs.
ELSEWHERE = {
    'docs/deployment.md': 'tests/export/test_runtime_docs.py',
    'docs/own_data.md': 'tests/test_own_data.py',
    'docs/recipes.md': 'tests/test_recipes.py',
}
PARTS = {'rules', 'bbox_head'}  # of a model's config, shown alone
SETTINGS = PARTS | {
    'custom_hooks', 'load_from', 'model', 'val_cfg', 'val_dataloader', 'val_evaluator', 'visualizer'
}
SMALLER = {'number=20': 'number=1'}  # of a measurement


def blocks_of(path: Path) -> list[str]:
    return [block for language, block in BLOCK.findall(path.read_text()) if language == 'python']


PAGES = {
    path.relative_to(ROOT).as_posix(): blocks_of(path)
    for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/**/*.md')),
                 *sorted(ROOT.glob('configs/**/*.md')))
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a checkout, with a float config of the reader's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    base = 'retinanet/retinanet_r18_fpn_mlbn_1x_coco.py'
    (tmp_path /
     'my_float_twin.py').write_text(f"_base_ = __import__('mmaqd').config_path('{base}')")
    return tmp_path


def assigned(block: str) -> set[str]:
    """The names that a block assigns, empty if it does anything else."""
    names = set()
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Assign):
            return set()
        names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def run_config(block: str, folder: Path) -> None:
    """Read a whole config and build its model, without memory for its weights."""
    (folder / 'mine.py').write_text(block)
    cfg = Config.fromfile(folder / 'mine.py')
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        MODELS.build(cfg.model)


def run_settings(block: str, folder: Path) -> None:
    """Build a run with the settings of a block."""
    names: dict[str, Any] = {}
    exec(block, names)
    found = {name: names[name] for name in assigned(block)}
    if 'custom_hooks' in found:  # `...` stands for the hooks that are there
        found['custom_hooks'] = [each for each in found['custom_hooks'] if each is not ...]
    cfg = run_cfg(make_coco(folder / 'data'), folder / 'work', bits=4)
    cfg.merge_from_dict(found)
    make_runner(cfg)


def run_head(block: str) -> None:
    """Build the detector with such a head."""
    names: dict[str, Any] = {}
    exec(block, names)
    cfg = model_cfg('RetinaNet')
    if 'head' in names['bbox_head']:
        anchors = dict(ratios=[1.0], octave_base_scale=4, scales_per_octave=1)
        cfg['bbox_head'] = dict(
            num_classes=3,
            in_channels=16,
            anchor_generator=dict(type='AnchorGenerator', strides=[8, 16, 32, 64, 128], **anchors))
    cfg['bbox_head'].update(names['bbox_head'])
    norms = [each for each in build(cfg).bbox_head.modules() if isinstance(each, MultiLevelBN)]
    assert {norm.num_levels for norm in norms} == {5}


def run_rules(block: str) -> None:
    """Quantize a network of all kinds of layers by rules that keep to convs."""
    from mmcv.ops import DeformConv2dPack
    names: dict[str, Any] = {}
    exec(block, names)
    layers = dict(
        conv=nn.Conv2d(4, 4, 3), deform=DeformConv2dPack(4, 4, 3), linear=nn.Linear(4, 4),
        up=nn.ConvTranspose2d(4, 4, 3), attention=nn.MultiheadAttention(4, 1))  # yapf: disable
    network = prepare(
        nn.ModuleDict(layers), dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        dict(type='mmaqd.LIQActivationQuantizer', bit_width=4), names['rules'])
    bits = {row.module: row.weight_bits for row in quantization_table(network)}
    assert (bits['conv'], bits['deform'], bits['deform.conv_offset']) == (4, 4, 8)
    assert {bits.get(name, 32) for name in ('linear', 'up', 'attention.out_proj')} <= {32, None}


def names_for(block: str) -> dict[str, Any]:
    """What a reader of the code has already."""
    if '(detector' not in block:
        return dict(
            MODELS=Registry('models'), MultiLevelHeadMixin=MultiLevelHeadMixin, ATSSHead=ATSSHead)
    detector = build(model_cfg('RetinaNet', None if 'prepare' in block else 4))
    batch = make_batch()
    if 'prepare' not in block:
        calibrate(detector, [batch])
        detector.eval()
    images = detector.data_preprocessor(batch)['inputs'][:1]
    return dict(detector=detector, batches=[batch], images=images)


def run(block: str, folder: Path, names: dict[str, Any]) -> None:
    """Run a block as what it is."""
    block = block.replace(', ...)', ')')
    for long, short in SMALLER.items():
        block = block.replace(long, short)
    if '_base_ = ' in block:
        run_config(block, folder)
    elif 'rules' in assigned(block):
        run_rules(block)
    elif 'bbox_head' in assigned(block):
        run_head(block)
    elif assigned(block) and assigned(block) <= SETTINGS:
        run_settings(block, folder)
    else:
        names.update(names_for(block))
        exec(block, names)


@pytest.mark.parametrize('page', [page for page in PAGES if PAGES[page] and page not in ELSEWHERE])
def test_code_runs(page: str, folder: Path) -> None:
    names: dict[str, Any] = dict(__name__='__main__')
    base = ''
    for block in PAGES[page]:
        if '_base_ = ' not in block and '_base_.' in block:
            block = base + block
        found = re.search(r'^_base_ = .*\n', block)
        base = found[0] if found else base
        run(block, folder, names)


@pytest.mark.parametrize('page, test', ELSEWHERE.items())
def test_pages_with_a_test_of_their_own(page: str, test: str) -> None:
    code = (ROOT / test).read_text()
    assert Path(page).name in code and '```python' in code
