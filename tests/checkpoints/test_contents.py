"""Text of a checkpoint does not run; a state dict knows its file until it is copied or saved."""
from __future__ import annotations

import ast
import pickle
from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
from torch import nn

from mmaqd.checkpoints import load_from_local
from mmaqd.checkpoints.contents import file_of, mark_as_loaded, safe_content

LINE_ENDS = ['\n', '\r', '\r\n', '\v', '\f', '\x1c', '\x85', '\u2028']


@pytest.mark.parametrize('end', LINE_ENDS, ids=repr)
@pytest.mark.parametrize('start', ['', '# a comment', 'x = """'])
def test_text_becomes_one_statement_that_raises(start, end):
    content = dict(state_dict={}, meta=dict(cfg=f'{start}{end}import os{end}"""', config='x = 1'))
    meta = safe_content(content, 'a.pth')['meta']
    statements = ast.parse(meta['cfg']).body
    assert [type(each) for each in statements] == [ast.Raise] and 'import os' in meta['cfg']
    assert 'config' not in meta


def test_a_second_time_nothing_is_added():
    content = dict(state_dict={}, meta=dict(cfg='a = 1\nb = 2'))
    once = safe_content(content, 'a.pth')['meta']['cfg']
    assert safe_content(content, 'a.pth')['meta']['cfg'] == once


def test_parts_that_are_none_are_absent():
    content = safe_content(dict(state_dict={}, meta=None, message_hub=None), 'a.pth')
    assert 'meta' not in content and 'message_hub' not in content


def test_a_state_knows_its_file(tmp_path):
    path = str(tmp_path / 'a.pth')
    for content in (nn.Linear(1, 1).state_dict(), dict(w=torch.ones(1))):
        torch.save(content, path)
        assert file_of(load_from_local(path)) == path
        torch.save(dict(state_dict=content), path)
        assert file_of(load_from_local(path)['state_dict']) == path


def test_copied_or_saved_it_is_an_ordinary_one(tmp_path):
    state = mark_as_loaded(nn.Linear(1, 1).state_dict(), 'a.pth')
    for copied in (deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert type(copied._metadata) is OrderedDict
        assert copied._metadata == nn.Linear(1, 1).state_dict()._metadata
    torch.save(state, tmp_path / 'b.pth')
    torch.load(tmp_path / 'b.pth', weights_only=True)
