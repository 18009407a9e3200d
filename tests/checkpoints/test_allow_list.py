"""The unpickler for torch without named safe globals: what it finds can't be changed by a file."""
from __future__ import annotations

import io
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmaqd.checkpoints.allow_list import RestrictedPickle


@pytest.mark.parametrize('name', [
    'mmengine.logging.history_buffer\nHistoryBuffer', 'torch._utils\n_rebuild_tensor_v2',
    'builtins\ngetattr'
])
def test_a_file_can_not_set_attributes_of_classes_and_functions(name):
    setting = b'(N(V__doc__\nVchanged\ndtb'  # BUILD with (None, {'__doc__': 'changed'})
    program = b'\x80\x02c' + name.encode() + b'\n' + setting + b'.'
    with pytest.raises(pickle.UnpicklingError, match='Unsupported global: a change of'):
        RestrictedPickle.load(io.BytesIO(program))
    assert 'changed' not in (HistoryBuffer.__doc__, torch._utils._rebuild_tensor_v2.__doc__)


@pytest.mark.parametrize('program', [
    b'(S"echo"\nios\nsystem\n.', b'\x82\x01.', b'cos\nsystem\n(S"echo"\ntR.',
    b'\x80\x04\x8c\x02os\x8c\x06system\x93.'
])
def test_no_other_way_to_a_function(program):
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        RestrictedPickle.load(io.BytesIO(program))
