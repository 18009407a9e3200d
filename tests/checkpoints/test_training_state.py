"""Which paths of a checkpoint a run keeps; the faults are told in tests/faults."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook

from mmaqd.checkpoints.training_state import keep_own_paths


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / 'work').mkdir()
    for name in ('best_1.pth', '../precious.pth', 'notes.txt'):
        (tmp_path / 'work' / name).touch()
    (tmp_path / 'work' / 'link.pth').symlink_to(tmp_path / 'precious.pth')
    (tmp_path / 'work' / 'folder.pth').mkdir()
    return tmp_path / 'work'


def kept(info: dict, work: Path, **hook: str) -> dict:
    runner = SimpleNamespace(work_dir=str(work), hooks=[CheckpointHook(**hook)])
    keep_own_paths(info, runner)
    return info


@pytest.mark.parametrize('name', [
    '../precious.pth', '../work/../precious.pth', 'link.pth', 'folder.pth', 'notes.txt', '.', '',
    'none.pth'
])
@pytest.mark.parametrize('key', ['best_ckpt', 'best_ckpt_coco/bbox_mAP', 'last_ckpt'])
def test_other_paths_are_dropped(work, key, name):
    assert kept({key: f'{work}/{name}', 'best_score': 1}, work) == {'best_score': 1}


def test_a_path_that_is_no_text_is_dropped(work):
    assert kept(dict(best_ckpt=5, keep_ckpt_ids=3), work) == dict(keep_ckpt_ids=[])


def test_own_paths_are_kept_and_those_of_a_moved_folder_mended(work):
    own = str(work / 'best_1.pth')
    assert kept(dict(best_ckpt=own), work) == dict(best_ckpt=own)
    assert kept(dict(best_ckpt='/moved/away/best_1.pth'), work) == dict(best_ckpt=own)


def test_the_folder_of_the_hook_is_one_of_the_run(work, tmp_path):
    own = tmp_path / 'out' / 'work' / 'best_2.pth'
    own.parent.mkdir(parents=True)
    own.touch()
    assert kept(dict(best_ckpt=str(own)), work, out_dir=str(tmp_path / 'out'))
    assert not kept(dict(best_ckpt=str(own)), work)


def test_numbers_of_checkpoints_are_numbers(work):
    info = kept(dict(keep_ckpt_ids=[1, '../x', True, 2.0, 3]), work)
    assert info == dict(keep_ckpt_ids=[1, 3])
