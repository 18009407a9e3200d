"""Loading by a name that is no path."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmaqd.checkpoints import CheckpointError, loaders


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> list[str]:
    """Stands in for the network; what was asked for."""
    asked: list[str] = []

    def download(url: str, path: str, progress: bool) -> None:
        asked.append(url)
        torch.save(dict(state_dict={'backbone.weight': torch.ones(1, 1)}), path)

    monkeypatch.setattr(loaders, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return asked


def test_a_url_is_downloaded_once(downloads, tmp_path):
    for _ in range(2):
        found = CheckpointLoader.load_checkpoint('https://no.such/a/b.pth?c=d')
    assert torch.equal(found['state_dict']['backbone.weight'], torch.ones(1, 1))
    assert downloads == ['https://no.such/a/b.pth?c=d']
    assert (tmp_path / 'hub' / 'checkpoints' / 'b.pth').exists()


def test_a_damaged_download_says_where_it_lies(downloads, tmp_path):
    CheckpointLoader.load_checkpoint('https://no.such/b.pth')
    path: Path = tmp_path / 'hub' / 'checkpoints' / 'b.pth'
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f'{path}.*cut off.*https://no.such/b.pth: delete'):
        CheckpointLoader.load_checkpoint('https://no.such/b.pth')


@pytest.mark.parametrize('name, table', [
    ('torchvision://net', 'get_torchvision_models'), ('modelzoo://net', 'get_torchvision_models'),
    ('open-mmlab://net', 'get_external_models'), ('mmcls://net', 'get_mmcls_models')
])  # yapf: disable
def test_a_known_name(downloads, monkeypatch, name, table):
    monkeypatch.setattr(loaders.mmengine_checkpoint, table,
                        lambda: dict(net='https://no.such/net.pth'))
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.Linear(1, 1)))
    load_checkpoint(model['backbone'] if name.startswith('mmcls') else model, name)
    assert model['backbone'].weight == 1 and downloads == ['https://no.such/net.pth']
    with pytest.raises(FileNotFoundError, match='no checkpoint .*none.*net'):
        CheckpointLoader.load_checkpoint(name.replace('net', 'none'))


def test_pavi_is_refused():
    with pytest.raises(CheckpointError, match='download the file and name it'):
        CheckpointLoader.load_checkpoint('pavi://a')
