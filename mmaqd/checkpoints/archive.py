"""Whether a file is a whole archive of ``torch.save``, before anything in it is believed.

torch writes a checksum (CRC32) of each record and does not look at it when it loads. Here all are
compared: reading a file costs about as much again (docs/reliability.md has the figures).
"""
from __future__ import annotations

import os.path as osp
import zipfile

_CHUNK = 2**20


def fault_of_file(path: str) -> str | None:
    """What is wrong with a file of ``torch.save``, without unpickling it.

    Files of torch before 1.6 are no archives and have no checksums; of those only an empty one is
    found here.

    Args:
        path: An existing file.

    Returns:
        The fault in the words of a message ("... is cut off"); None if there is none.

    Raises:
        OSError: The file can't be read.
    """
    size = osp.getsize(path)
    if size == 0:
        return 'empty (0 bytes)'
    with open(path, 'rb') as file:
        start = file.read(4)
    if start.startswith(b'PK'):
        return _fault_of_archive(path)
    if start.startswith(b'\x80'):  # how pickles start, and with them the files of old torch
        return None
    return f'starting with {start!r}, so it is not a checkpoint that torch.save wrote'


def _fault_of_archive(path: str) -> str | None:
    if not zipfile.is_zipfile(path):
        return 'cut off'
    try:
        with zipfile.ZipFile(path) as archive:
            return _fault_of_names(archive) or _fault_of_records(archive)
    except Exception:  # a damaged directory fails in many ways, as an encrypted file among them
        return 'damaged'


def _fault_of_names(archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        return 'damaged: it has two records of one name'
    if any(name.endswith('/constants.pkl') for name in names):
        return ('a TorchScript archive, which is code, and was not loaded. Save the state_dict() '
                'of the model instead')
    if not any(name.endswith('data.pkl') for name in names):
        return 'a zip archive, but not a checkpoint that torch.save wrote'
    return None


def _fault_of_records(archive: zipfile.ZipFile) -> str | None:
    for info in archive.infolist():
        try:
            with archive.open(info) as record:
                while record.read(_CHUNK):
                    pass
        except Exception:  # the wrong checksum, or whatever damage made of the record's header
            return f'damaged: its record {info.filename!r} has another checksum than was saved'
    return None
