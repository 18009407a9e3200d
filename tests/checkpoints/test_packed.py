"""The format of packed files: what is written is read, and anything else is an error by name."""
from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmaqd.checkpoints import CheckpointError, WeightLayout, pack_state, read_checkpoint
from mmaqd.functional import (IntegerGrid, narrow_grid, packed_size, symmetric_weight_grid,
                              twos_complement_grid)

safetensors = pytest.importorskip('safetensors.torch')
SHAPES = [(1, 1, 1, 1), (3, 1, 1, 1), (5, 3, 3, 3), (7, 2, 1, 5), (16, 4, 3, 3)]
GRIDS = [
    make(bits) for make in (symmetric_weight_grid, narrow_grid, twos_complement_grid)
    for bits in range(2, 9)
]
ABOUT = dict(config="import os; os.system('false')", mmaqd_version='0.0.0', dataset_meta='{}')


def layer(shape: tuple[int, ...], grid: IntegerGrid, per_channel: bool = False) -> dict:
    """The state of a layer whose weights are levels; every code is among them if there is room."""
    torch.manual_seed(0)
    indices = torch.randperm(torch.Size(shape).numel()) % grid.num_codes
    codes = grid.codes(indices.to(torch.uint8)).view(shape)
    scale = torch.rand(shape[0] if per_channel else ()) + 0.01
    spread = scale.view(-1, 1, 1, 1) if per_channel else scale
    return {
        'conv.weight': codes * spread,
        'conv.weight_quantizer.stored_scale': scale,
        'conv.weight_quantizer.bits': torch.tensor(grid.bit_width),
        'bn.weight': torch.randn(3),
        'bn.num_batches_tracked': torch.tensor(7),
        'flag': torch.tensor(True),
        'empty': torch.zeros(0, 2),
    }


def packed(state: dict[str, Tensor], grid: IntegerGrid = symmetric_weight_grid(3)) -> bytes:
    return pack_state(state, {'conv.weight': WeightLayout(grid)}, ABOUT)


def written(content: bytes, folder: Path, name: str = 'model.safetensors') -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def assert_same(found: dict, state: dict) -> None:
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


def split(content: bytes) -> tuple[dict, bytes]:
    end = 8 + int.from_bytes(content[:8], 'little')
    return json.loads(content[8:end]), content[end:]


def joined(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('shape', SHAPES)
def test_every_grid_and_ragged_shapes(grid, shape, tmp_path):
    for per_channel in (False, True):
        state = layer(shape, grid, per_channel)
        content = packed(state, grid)
        assert_same(read_checkpoint(written(content, tmp_path))['state_dict'], state)
        entry = split(content)[0]['conv.weight']
        assert entry['shape'] == [packed_size(torch.Size(shape).numel(), grid.bit_width)]


def test_the_same_state_gives_the_same_bytes():
    state = layer((5, 3, 3, 3), symmetric_weight_grid(3))
    assert len({packed(dict(sorted(state.items(), reverse=r))) for r in (True, False)}) == 1


def test_a_layer_under_two_names_is_written_once(tmp_path):
    state = layer((16, 4, 3, 3), symmetric_weight_grid(3))
    twice = {**state, **{f'other.{key}': value for key, value in state.items()}}
    content = pack_state(twice, dict.fromkeys(['conv.weight', 'other.conv.weight'],
                                              WeightLayout(symmetric_weight_grid(3))),
                         ABOUT)  # yapf: disable
    assert 'other.conv.weight' not in split(content)[0]
    assert_same(read_checkpoint(written(content, tmp_path))['state_dict'], twice)


def test_text_in_it_is_not_run(tmp_path):
    path = written(packed(layer((1, 1, 1, 1), symmetric_weight_grid(3))), tmp_path)
    with pytest.raises(RuntimeError, match='not run'):
        exec(read_checkpoint(path)['meta']['cfg'])


def test_map_location(tmp_path):
    path = written(packed(layer((1, 1, 1, 1), symmetric_weight_grid(3))), tmp_path)
    assert read_checkpoint(path, 'meta')['state_dict']['conv.weight'].is_meta


def test_any_bit_that_flips_is_an_error_or_nothing(tmp_path):
    state = layer((5, 3, 3, 3), symmetric_weight_grid(3))
    content = packed(state)
    draw = random.Random(0)
    places = {*range(16), *range(len(content) - 60, len(content))}
    places |= {draw.randrange(len(content)) for _ in range(300)}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path = written(bytes(damaged), tmp_path)
        try:
            found = read_checkpoint(path)
        except CheckpointError as error:
            assert path in str(error)
        else:
            assert_same(found['state_dict'], state)


@pytest.mark.parametrize('keep', [0, 1, 7, 8, 9, 100, -1])
def test_cut_off(keep, tmp_path):
    path = written(packed(layer((5, 3, 3, 3), symmetric_weight_grid(3)))[:keep], tmp_path)
    with pytest.raises(CheckpointError, match='damaged|cut off'):
        read_checkpoint(path)


def test_bytes_behind_the_end(tmp_path):
    path = written(packed(layer((5, 3, 3, 3), symmetric_weight_grid(3))) + b'\0', tmp_path)
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


@pytest.mark.parametrize('content', [
    safetensors.save({'weight': torch.ones(2)}),
    safetensors.save({'weight': torch.ones(2)}, dict(format='pt')),
    b'PK\3\4 some archive',
    joined(dict(__metadata__=['format']), b''),
    joined(dict(__metadata__=None), b''),
    (10**6).to_bytes(8, 'little') + b'[' * 10**6,
])
def test_foreign_files(content, tmp_path):
    path = written(content, tmp_path)
    with pytest.raises(CheckpointError, match='no packed checkpoint of mmaqd') as caught:
        read_checkpoint(path)
    assert path in str(caught.value)


@pytest.mark.parametrize('version', ['0', '3', 1, None])
def test_another_version(version, tmp_path):
    header, data = split(packed(layer((1, 1, 1, 1), symmetric_weight_grid(3))))
    header['__metadata__']['format_version'] = version
    with pytest.raises(
            CheckpointError, match=rf"version {version!r}.*reads versions 1 and 2.*0\.0\.0"):
        read_checkpoint(written(joined(header, data), tmp_path))


FORGED = {
    'no such tensor': {'nowhere.weight': dict(shape=[1], grid=[-3, 3, 2])},
    'no scale': {'bn.weight': dict(shape=[3], grid=[-3, 3, 2])},
    'more weights than bytes': {'conv.weight': dict(shape=[10**9], grid=[-7, 7, 2])},
    'other bits': {'conv.weight': dict(shape=[5, 3, 3, 3], grid=[-3, 3, 2])},
    'no grid': {'conv.weight': dict(shape=[5, 3, 3, 3], grid=[3, -3, 2])},
    'a huge grid': {'conv.weight': dict(shape=[5, 3, 3, 3], grid=[0, 10**30, 1])},
    'fewer codes': {'conv.weight': dict(shape=[5, 3, 3, 3], grid=[-2, 2, 1])},
    'text': {'conv.weight': dict(shape='conv', grid=[-7, 7, 2])},
    'a list': [],
    'negative': {'conv.weight': dict(shape=[-5, -3, 3, 3], grid=[-7, 7, 2])},
}  # yapf: disable


@pytest.mark.parametrize('layers', FORGED.values(), ids=FORGED)
def test_forged_files_with_the_right_checksums(layers, tmp_path):
    from mmaqd.checkpoints import packed as module
    header, data = split(packed(layer((5, 3, 3, 3), symmetric_weight_grid(3))))
    metadata = header['__metadata__']
    metadata['layers'] = json.dumps(layers)
    metadata['checksum'] = module._checksum(metadata)
    with pytest.raises(CheckpointError, match='can\'t be unpacked'):
        read_checkpoint(written(joined(header, data), tmp_path))


def test_a_scale_of_half_precision_is_no_scale(tmp_path):
    """Codes times it would be other numbers than codes times the same scale in single precision."""
    state = layer((5, 3, 3, 3), symmetric_weight_grid(3))
    content = packed({
        key: value.half() if key.endswith('scale') else value
        for key, value in state.items()
    })
    with pytest.raises(CheckpointError, match='scale of torch.float16'):
        read_checkpoint(written(content, tmp_path))


def test_without_safetensors(tmp_path, monkeypatch):
    state = layer((1, 1, 1, 1), symmetric_weight_grid(3))
    path = written(packed(state), tmp_path)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ModuleNotFoundError, match='read packed.*pip install safetensors'):
        read_checkpoint(path)
    with pytest.raises(ModuleNotFoundError, match='write packed.*pip install safetensors'):
        packed(state)
