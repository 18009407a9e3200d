"""What is found wrong with a file before anything in it is unpickled."""
from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from mmaqd.checkpoints.archive import fault_of_file


@pytest.fixture
def whole(tmp_path) -> Path:
    torch.save(dict(w=torch.arange(5000.)), tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


def test_whole_files_have_no_fault(whole, tmp_path):
    torch.save(dict(w=torch.ones(3)), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert fault_of_file(str(whole)) is None
    assert fault_of_file(str(tmp_path / 'old.pth')) is None


def test_every_bit_of_every_record_counts(whole):
    data = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        start = next(info for info in archive.infolist() if info.filename.endswith('data/0'))
    for at in range(start.header_offset + 200, start.header_offset + 20000, 1999):
        data[at] ^= 1
        whole.write_bytes(data)
        assert 'data/0' in fault_of_file(str(whole))
        data[at] ^= 1


def test_two_records_of_one_name(whole):
    with pytest.warns(UserWarning, match='Duplicate'), zipfile.ZipFile(whole, 'a') as archive:
        archive.writestr(archive.namelist()[0], b'other')
    assert fault_of_file(str(whole)) == 'damaged: it has two records of one name'


def test_a_file_that_can_not_be_read(tmp_path):
    with pytest.raises(OSError):
        fault_of_file(str(tmp_path / 'none.pth'))
