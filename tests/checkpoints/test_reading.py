"""Checkpoints of real runs load safely; files that are not checkpoints say what is wrong."""
from __future__ import annotations

import builtins
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmaqd.checkpoints import CheckpointError, load_from_local, reading
from mmaqd.checkpoints.allow_list import RestrictedPickle, restricted_getattr


@pytest.fixture(params=[True, False], ids=['safe-globals', 'older-torch'], autouse=True)
def reader(request, monkeypatch):
    """Both ways of reading: that of today's torch, and that of versions without named globals."""
    if request.param and not reading._HAS_NAMED_SAFE_GLOBALS:
        pytest.skip('this torch has no named safe globals')
    monkeypatch.setattr(reading, '_HAS_NAMED_SAFE_GLOBALS', request.param)


class Innocent:
    """A class that no checkpoint should hold."""


class Harmful:
    """What a crafted checkpoint does: unpickling it would call a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save(path, content, **options) -> str:
    torch.save(content, path, **options)
    return str(path)


def test_is_the_loader_of_mmengine():
    assert CheckpointLoader._get_checkpoint_loader('a/b.pth') is load_from_local


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_content_survives(tmp_path, zipped):
    parameter = torch.nn.Parameter(torch.arange(6.).reshape(2, 3))
    content = OrderedDict(
        tensor=torch.ones(2, dtype=torch.float16),
        parameter=parameter,
        shape=torch.Size([2]),
        dtype=torch.int8,
        names={'a', 'b'},
        nothing=None,
        nested=dict(list=[1, 2.5, 'x', b'y']))
    path = save(tmp_path / 'a.pth', content, _use_new_zipfile_serialization=zipped)
    loaded = load_from_local(path, map_location='cpu')
    assert torch.equal(loaded.pop('tensor'), content.pop('tensor'))
    assert torch.equal(loaded.pop('parameter'), content.pop('parameter'))
    assert loaded == content


def test_logged_histories_survive(tmp_path):
    history = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    loaded = load_from_local(save(tmp_path / 'a.pth', dict(loss=history)))['loss']
    assert (loaded.mean(), loaded.max(), loaded.statistics('current')) == (3.0, 6.0, 6.0)


@pytest.mark.parametrize('dtype', ['f4', 'f8', 'i4', 'i8', 'u1', 'bool'])
def test_numpy_values_survive(tmp_path, dtype):
    array = np.ones(3, dtype)
    loaded = load_from_local(save(tmp_path / 'a.pth', dict(array=array, scalar=array[0])))
    assert loaded['array'].dtype == array.dtype and (loaded['array'] == array).all()
    assert loaded['scalar'] == array[0]


def test_names_of_numpy_1_are_known(tmp_path):
    path = tmp_path / 'a.pkl'
    content = pickle.dumps(np.float64(2.5), protocol=2)
    path.write_bytes(content.replace(b'numpy._core', b'numpy.core'))
    with path.open('rb') as file:
        assert RestrictedPickle.load(file) == 2.5


def test_one_cycle_state_survives(tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    state = OneCycleLR(optimizer, eta_max=0.1, total_steps=10).state_dict()
    loaded = load_from_local(save(tmp_path / 'a.pth', state))
    assert loaded['anneal_func'](0.0, 1.0, 1.0) == state['anneal_func'](0.0, 1.0, 1.0)


def test_nested_config_in_metainfo_survives(tmp_path):
    meta = ConfigDict(classes=('a', ), colors=dict(a=(1, 2, 3)))
    loaded = load_from_local(save(tmp_path / 'a.pth', dict(meta=meta)))['meta']
    assert isinstance(loaded, ConfigDict) and loaded == meta


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(tmp_path / 'a.pth', dict(x=1))
    assert load_from_local('~/a.pth') == dict(x=1)


def test_nothing_is_allowed_outside_of_a_call(tmp_path):
    path = save(tmp_path / 'a.pth', dict(loss=HistoryBuffer([1.0], [1])))
    load_from_local(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    'content', [
        Innocent(),
        Harmful(exec, 'raise SystemExit'),
        Harmful(getattr, HistoryBuffer, '__init__'),
        Harmful(getattr, torch.Tensor, 'numpy'),
    ],
    ids=['class', 'exec', 'getattr-method', 'getattr-tensor'])
def test_other_objects_are_refused(tmp_path, content):
    path = save(tmp_path / 'a.pth', dict(x=content))
    with pytest.raises(CheckpointError, match='holds more than weights') as error:
        load_from_local(path)
    assert path in str(error.value) and 'keep its weights only' in str(error.value)


def test_restricted_getattr_gives_the_few_methods_only():
    assert restricted_getattr(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in [(HistoryBuffer, 'update'), (builtins, 'eval'), (np.ndarray, 'mean')]:
        with pytest.raises(pickle.UnpicklingError, match=name):
            restricted_getattr(owner, name)


def test_missing_file_names_what_is_there(tmp_path):
    save(tmp_path / 'epoch_1.pth', {})
    with pytest.raises(FileNotFoundError) as error:
        load_from_local(str(tmp_path / 'epoch_12.pth'))
    message = str(error.value)
    assert 'epoch_12.pth' in message and 'The folder has epoch_1.pth' in message
    assert 'train that one first' in message


@pytest.mark.parametrize('path, said', [
    ('nowhere/a.pth', 'Its folder does not exist either'),
    ('a.pth', 'The folder has no .pth file'),
    ('', 'is a folder'),
])
def test_missing_file_says_how_far_the_path_is_right(tmp_path, path, said):
    with pytest.raises(FileNotFoundError, match=said):
        load_from_local(str(tmp_path / path))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('fraction', [0.01, 0.5, 0.99])
def test_cut_off_file(tmp_path, zipped, fraction):
    path = tmp_path / 'a.pth'
    save(path, dict(state_dict=dict(w=torch.rand(100, 100))), _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * fraction)])
    with pytest.raises(CheckpointError, match='cut off') as error:
        load_from_local(str(path))
    assert str(path) in str(error.value) and 'name another checkpoint' in str(error.value)


@pytest.mark.parametrize('content, said', [
    (b'', r'empty \(0 bytes\)'),
    (b'\x80', 'damaged or cut off'),
    (b'<html>not found</html>', "starting with b'<htm'.* is not a checkpoint"),
    (b'\x89PNG\r\n\x1a\n' + bytes(100), 'is not a checkpoint'),
    (bytes(1000), 'is not a checkpoint'),
])
def test_file_of_another_kind(tmp_path, content, said):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_from_local(str(path))


def test_zip_of_another_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        archive.writestr('readme.txt', 'hello')
    with pytest.raises(CheckpointError, match='a zip archive, but not a checkpoint'):
        load_from_local(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'whole, damaged', [
        (b'_rebuild_tensor_v2', b'_rebuild_tensor_v9'),
        (b'\x80\x02}', b'\x80\x02!'),
    ],
    ids=['name', 'operation'])
def test_damaged_archive(tmp_path, whole, damaged):
    path = tmp_path / 'a.pth'
    save(path, dict(w=torch.ones(4)))
    path.write_bytes(path.read_bytes().replace(whole, damaged))
    with pytest.raises(CheckpointError, match='is damaged'):
        load_from_local(str(path))


def test_error_that_is_not_the_fault_of_the_file_is_kept(tmp_path):

    def unable(storage, location):
        raise RuntimeError('there is no such device')

    with pytest.raises(RuntimeError, match='^there is no such device$'):
        load_from_local(save(tmp_path / 'a.pth', dict(w=torch.ones(4))), map_location=unable)


def test_errors_reach_the_user_through_mmengine(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match='empty'):
        load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / 'a.pth'))
