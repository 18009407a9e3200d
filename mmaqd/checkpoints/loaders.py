"""MMEngine's loaders, each replaced by one that ends in :func:`read_checkpoint`.

MMEngine finds a loader by the start of a name, one for the process. Its own for URLs unpickle what
was downloaded without any restriction, and its local one refuses MMEngine's own checkpoints on
today's torch. Importing this module registers ours with it (and nothing else): the runner, its
resume, ``load_checkpoint``, ``init_detector``, ``DetInferencer`` and ``Pretrained`` ask there.
"""
from __future__ import annotations

import os
import os.path as osp
import sys
from urllib.parse import urlparse

import torch
from mmengine.dist import get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch.hub import download_url_to_file

from .errors import CheckpointError
from .reading import MapLocation, read_checkpoint


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: MapLocation = None) -> dict:
    """Read a local checkpoint file, see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: MapLocation = None) -> dict:
    """Download a checkpoint, unless it is there already, and read it as a local file.

    It is kept in torch's folder for checkpoints under the last part of the URL, as MMEngine does.

    Args:
        filename: The URL.
        map_location: As in :func:`torch.load`.

    Raises:
        CheckpointError: What was downloaded is no whole and safe checkpoint.
    """
    path = _cached(filename)
    rank, world_size = get_dist_info()
    if rank == 0 and not osp.exists(path):
        sys.stderr.write(f'Downloading {filename} to {path}\n')
        os.makedirs(osp.dirname(path), exist_ok=True)
        download_url_to_file(filename, path, progress=os.isatty(0))
    if world_size > 1:
        torch.distributed.barrier()
    try:
        return read_checkpoint(path, map_location)
    except CheckpointError as error:
        raise CheckpointError(f'{error} It was downloaded from {filename}: delete the file to '
                              'download it anew.') from None


@CheckpointLoader.register_scheme(prefixes=('modelzoo://', 'torchvision://'), force=True)
def load_from_torchvision(filename: str, map_location: MapLocation = None) -> dict:
    """Read a checkpoint that torchvision offers, by its name."""
    return _load_named(filename, mmengine_checkpoint.get_torchvision_models(), map_location)


@CheckpointLoader.register_scheme(prefixes=('open-mmlab://', 'openmmlab://'), force=True)
def load_from_openmmlab(filename: str, map_location: MapLocation = None) -> dict:
    """Read a checkpoint that OpenMMLab offers, by its name."""
    name = filename.split('://', 1)[1]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    return _load_named(f'open-mmlab://{name}', mmengine_checkpoint.get_external_models(),
                       map_location)


@CheckpointLoader.register_scheme(prefixes='mmcls://', force=True)
def load_from_mmcls(filename: str, map_location: MapLocation = None) -> dict:
    """Read the backbone of a checkpoint that MMClassification offers, by its name."""
    checkpoint = _load_named(filename, mmengine_checkpoint.get_mmcls_models(), map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


@CheckpointLoader.register_scheme(prefixes=[r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], force=True)
def load_from_ceph(filename: str, map_location: MapLocation = None) -> dict:
    """Read a checkpoint from a Ceph store, for which MMEngine's file backend is installed."""
    backend = get_file_backend(filename, backend_args={'backend': 'petrel'})
    with backend.get_local_path(filename) as path:
        return read_checkpoint(path, map_location)


@CheckpointLoader.register_scheme(prefixes='pavi://', force=True)
def load_from_pavi(filename: str, map_location: MapLocation = None) -> dict:
    """Refuse: MMEngine's own loader would unpickle it."""
    raise CheckpointError(f'{filename!r} can\'t be read safely: download the file and name it.')


def _cached(url: str) -> str:
    return osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))


def _load_named(filename: str, urls: dict[str, str], map_location: MapLocation) -> dict:
    name = filename.split('://', 1)[1]
    if name not in urls:
        raise FileNotFoundError(f'There is no checkpoint {filename!r}: name one of those that '
                                f'MMEngine knows, such as {", ".join(sorted(urls)[:3])}.')
    url = urls[name]
    if not url.startswith(('http://', 'https://')):
        return read_checkpoint(
            osp.join(mmengine_checkpoint._get_mmengine_home(), url), map_location)
    return load_from_http(url, map_location)
