"""The checkpoint that a run goes on from."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmaqd.checkpoints import CheckpointError, last_whole_checkpoint


@pytest.fixture
def work(tmp_path) -> Path:
    for name in ('epoch_2', 'epoch_9', 'epoch_10', 'best_coco_epoch_11', 'low_bit_12'):
        torch.save(dict(w=torch.ones(3)), tmp_path / f'{name}.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_9.pth'))
    return tmp_path


def found(work: Path) -> str:
    return Path(last_whole_checkpoint(str(work))).name


def test_the_one_that_is_named(work):
    assert found(work) == 'epoch_9.pth'


@pytest.mark.parametrize('text', ['', 'nowhere/epoch_99.pth', '\0'])
def test_else_the_last_by_its_number(work, text):
    (work / 'last_checkpoint').write_text(text)
    assert found(work) == 'epoch_10.pth'


def test_without_the_file(work):
    (work / 'last_checkpoint').unlink()
    assert found(work) == 'epoch_10.pth'


def test_of_a_moved_folder_the_same_one(work):
    (work / 'last_checkpoint').write_text('/moved/away/epoch_9.pth')
    assert found(work) == 'epoch_9.pth'


def test_half_written_ones_are_passed_over(work):
    for name in ('epoch_9.pth', 'epoch_10.pth'):
        (work / name).write_bytes((work / name).read_bytes()[:300])
    assert found(work) == 'epoch_2.pth'
    (work / 'epoch_2.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match='No checkpoint in .* is whole.*epoch_2.pth is empty'):
        last_whole_checkpoint(str(work))


def test_none_yet(tmp_path):
    assert last_whole_checkpoint(str(tmp_path)) is None
    assert last_whole_checkpoint(str(tmp_path / 'none')) is None
