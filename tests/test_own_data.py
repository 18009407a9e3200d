"""docs/own_data.md, command by command, on generated data in both formats."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.helpers.commands import commands_of, run_tool
from tests.helpers.data import CLASSES, make_own

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
TEMPLATE = ROOT / 'configs' / 'own_data'
EDITED = dict(
    data_root='data/own/',
    classes=CLASSES,
    scale=(64, 64),
    batch_size=2,
    max_epochs=1,
    low_bit_epochs=1,
    backbone_checkpoint=None)


def edit(path: Path, **values: object) -> None:
    """Set names in a config, each of which is assigned on one line."""
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf'^{name} = .*$', f'{name} = {value!r}', text, flags=re.MULTILINE)
        assert count == 1, name
    path.write_text(text)


def settings(text: str) -> list[str]:
    """The assignments of the block that the user edits."""
    return [line for line in text.split('# ---')[0].splitlines() if not line.startswith('#')]


def test_the_page_shows_the_lines_to_edit():
    block, = re.findall(r'```python\n(annotations = .*?)```', PAGE, flags=re.DOTALL)
    assert block.splitlines() == settings((TEMPLATE / 'my_data.py').read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that looks like the repository's root, but for the data."""
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize('form, grey', [('coco', False), ('voc', True)])
def test_every_command(folder: Path, monkeypatch: pytest.MonkeyPatch, form: str, grey: bool):
    make_own(folder / 'data' / 'own', form, grey)
    copying, *commands = commands_of(PAGE)
    (folder / 'my_detector').mkdir()
    assert copying == ['cp', '-r', 'configs/own_data', 'my_detector']
    edit(copied(folder / 'my_detector') / 'my_data.py', annotations=form, **EDITED)
    images = 'data/own/images' if form == 'coco' else 'data/own/JPEGImages'
    for command in commands:
        command = [word.replace('epoch_12.pth', 'epoch_1.pth') for word in command]
        run_tool(monkeypatch, [images if word == 'data/own/images' else word for word in command])
    found = json.loads((folder / 'found' / 'detections.json').read_text())
    assert [each['width'] for each in found] == [64] * 4
    metrics = [json.loads(path.read_text()) for path in folder.glob('work_dirs/w4a4/*/*.json')]
    # Without ground truth it would be -1.
    assert len(metrics) == 2 and all(each['coco/bbox_mAP'] >= 0 for each in metrics)


def test_the_augmentation_is_applied(folder: Path):
    config = Config.fromfile(TEMPLATE / 'w4a4.py')
    steps = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert 'RandomFlip' in steps
    assert 'train_pipeline' not in config
    assert config.model.bbox_head.num_classes == len(config.classes)
    assert config.load_from == f'work_dirs/float/epoch_{config.max_epochs}.pth'


def test_the_low_bit_model_is_the_float_twin_quantized():
    twin, low = (Config.fromfile(TEMPLATE / f'{name}.py').model for name in ('float', 'w4a4'))
    assert low.pop('type') == 'mmaqd.QuantizedDetector'
    assert low.pop('detector') == twin.pop('type')
    assert low.pop('quantization').weight_quantizer.bit_width == 4
    assert twin.backbone.pop('init_cfg').type == 'mmaqd.FoldInputStd'
    assert low.backbone.pop('init_cfg') is None  # load_from brings all weights
    assert low == twin


def copied(folder: Path) -> Path:
    for path in TEMPLATE.glob('*.py'):
        (folder / path.name).write_text(path.read_text())
    return folder


def test_fewer_channels_go_through_the_whole_model(tmp_path: Path):
    edit(copied(tmp_path) / 'my_data.py', channels=16, backbone_checkpoint=None)
    model = Config.fromfile(tmp_path / 'float.py').model
    assert model.backbone.base_channels == 16 and model.backbone.init_cfg is None
    assert list(model.neck.in_channels) == [16, 32, 64, 128]
    head = model.bbox_head
    assert {model.neck.out_channels, head.in_channels, head.feat_channels} == {64}


def test_fewer_channels_than_the_checkpoint_has_are_refused(tmp_path: Path):
    edit(copied(tmp_path) / 'my_data.py', channels=16)
    with pytest.raises(ValueError, match='resnet18 is for 64, but got 16.*backbone_checkpoint'):
        Config.fromfile(tmp_path / 'float.py')


def test_an_unknown_format_is_refused(tmp_path: Path):
    mine = tmp_path / 'my_data.py'
    mine.write_text((TEMPLATE / 'my_data.py').read_text())
    edit(mine, annotations='yolo')
    with pytest.raises(ValueError, match="expected 'coco' or 'voc', but got 'yolo'"):
        Config.fromfile(mine)
