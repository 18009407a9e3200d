"""Detections of a checkpoint in images: what is written, what is refused."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmaqd.engine.inference import detect_images
from tests.helpers.commands import run_tool

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'bccd'
NAME = 'retinanet_r18-c16_fpn_mlbn-w2a2-distill_1xb8-6e_bccd'
CONFIG = str(CONFIGS / f'{NAME}.py')
CHECKPOINT = str(CONFIGS / 'packed' / f'{NAME}.safetensors')


def test_a_folder_of_images(tmp_path, monkeypatch, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a.jpg', 'b.jpg'):
        (images / name).symlink_to(CONFIGS / 'packed' / 'BloodImage_00057.jpg')
    command = ['python', 'tools/image_demo.py', CONFIG, CHECKPOINT, str(images)]
    run_tool(monkeypatch, [*command, '--out', str(tmp_path / 'out'), '--device', 'cpu'])
    one, other = [
        json.loads((tmp_path / 'out' / 'preds' / f'{name}.json').read_text()) for name in 'ab'
    ]
    assert one == other and one['scores'] == sorted(one['scores'], reverse=True)
    assert {path.name for path in (tmp_path / 'out' / 'vis').iterdir()} == {'a.jpg', 'b.jpg'}
    seen = 2 * sum(score >= 0.3 for score in one['scores'])
    assert f'{seen} detections in 2 images' in capsys.readouterr().out


def test_images_that_are_missing():
    with pytest.raises(FileNotFoundError, match="'no.jpg' does not exist: expected an image"):
        detect_images(CONFIG, CHECKPOINT, 'no.jpg', 'out')


def test_a_threshold_that_is_no_score():
    with pytest.raises(ValueError, match=r'must be in \[0, 1\], but got 30'):
        detect_images(CONFIG, CHECKPOINT, str(CONFIGS), 'out', score_threshold=30)
