"""Packed checkpoints: safetensors files with the codes of quantized weights in their own bits.

A file holds the state of a model whose quantizers store codes (see
:class:`mmaqd.quantizers.WeightQuantizer`), each tensor under its key and as it is, but for the
quantized weights: those are the indices of their codes, packed without gaps (uint8, one dimension).
The metadata, all text, say the rest:

- ``format``, ``format_version``: what the file is. Version 2 has ``axis`` or ``parts``.
- ``layers``: JSON, for each packed weight its shape and the grid (qmin, qmax, step). The weights
  are ``(qmin + step * index) * scale`` with the tensor ``{layer}.weight_quantizer.stored_scale``,
  whose values, if there are several, go along ``axis`` of the weights (0 where it is not given).
- ``parts``: JSON, for the key of a weight that is not written the keys of those that it is made of,
  one below the other (the projections of attention, which have scales of their own).
- ``aliases``: JSON, keys of tensors that are not written since another key has the same tensor.
- ``checksums``: for each tensor, in the order of the keys, the start of the SHA-256 of its key,
  dtype, shape and bytes.
- ``checksum``: the SHA-256 of all other metadata.
- ``dataset_meta`` (JSON), ``config``, and what else the writer adds: versions, ...

The same state gives the same bytes.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Mapping, Sequence

import torch
from torch import Tensor

from mmaqd.functional import IntegerGrid, pack, unpack
from mmaqd.functional.kernels import per_channel
from mmaqd.quantizers import STORED_SCALE
from mmaqd.version import __version__

from .errors import CheckpointError

FORMAT = 'mmaqd.packed'
FORMAT_VERSIONS = ('1', '2')
_PACK_AGAIN = 'pack the checkpoint again (tools/deployment/pack.py), or copy the file again'


@dataclass(frozen=True)
class WeightLayout:
    """How the codes of a weight lie.

    Attributes:
        grid: The codes.
        axis: Axis of the weight along which the scales go, if there are several.
    """

    grid: IntegerGrid
    axis: int = 0

    def as_dict(self, weight: Tensor) -> dict[str, Any]:
        """What a packed file says of a weight, but for its indices."""
        grid = [self.grid.qmin, self.grid.qmax, self.grid.step]
        axis = dict(axis=self.axis) if self.axis else {}
        return dict(shape=list(weight.shape), grid=grid, **axis)


def pack_state(state: Mapping[str, Tensor],
               layouts: Mapping[str, WeightLayout],
               about: Mapping[str, str],
               parts: Mapping[str, Sequence[str]] | None = None) -> bytes:
    """The content of a packed file.

    Args:
        state: State of a model whose quantizers of weights store codes.
        layouts: For the key of each weight to pack how its codes lie.
        about: More metadata.
        parts: Keys of the weights that a tensor is made of, equal parts along its first axis, by
            its key; they are packed one by one.

    Returns:
        What to write into the file.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
    """
    aliases = _aliases(state)
    tensors = {key: value for key, value in state.items() if key not in aliases}
    parts = {key: list(names) for key, names in (parts or {}).items() if key in tensors}
    for key, names in parts.items():
        tensors.update(zip(names, tensors.pop(key).chunk(len(names))))
    layers = {}
    for key in tensors.keys() & layouts.keys():
        layout, weight = layouts[key], tensors[key]
        layers[key] = layout.as_dict(weight)
        codes = torch.round(weight / _spread_scale(state, key, weight, layout.axis))
        tensors[key] = pack(layout.grid.indices(codes), layout.grid.bit_width)
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    is_new = bool(parts) or any('axis' in layer for layer in layers.values())
    metadata = {
        **about, 'format': FORMAT,
        'format_version': FORMAT_VERSIONS[is_new],
        **(dict(parts=_json(parts)) if parts else {}), 'layers': _json(layers),
        'aliases': _json(aliases),
        'checksums': ' '.join(_digest(key, tensors[key]) for key in sorted(tensors))
    }
    metadata['checksum'] = _checksum(metadata)
    return _in_order(_safetensors('write').save(tensors, metadata))


def read_packed_file(path: str, map_location: Any = None) -> dict:
    """Read a packed checkpoint; a reader for :func:`read_checkpoint`.

    Args:
        path: The file.
        map_location: As in :func:`torch.load`.

    Returns:
        ``state_dict``, that of a model whose quantizers store codes, and ``meta`` with
        ``dataset_meta``, ``cfg`` (the config's text, which :func:`safe_content` makes comments) and
        ``packed``, the metadata of the file.

    Raises:
        CheckpointError: It is damaged, no packed file of ours, or one of another version.
        ModuleNotFoundError: safetensors is not installed.
    """
    with open(path, 'rb') as file:
        content = file.read()
    metadata = _metadata(content, path)
    tensors = _checked_tensors(content, metadata, path)
    try:
        state = _unpacked(tensors, json.loads(metadata['layers']))
        for key, names in json.loads(metadata.get('parts', '{}')).items():
            state[key] = torch.cat([state.pop(name) for name in names])
        state.update({alias: state[key] for alias, key in json.loads(metadata['aliases']).items()})
        dataset_meta = json.loads(metadata.get('dataset_meta', '{}'))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _error(path, f'can\'t be unpacked ({type(error).__name__}: {error})') from error
    meta = dict(dataset_meta=dataset_meta, cfg=metadata.get('config', ''), packed=metadata)
    return dict(meta=meta, state_dict=_located(state, map_location))


def _metadata(content: bytes, path: str) -> dict[str, str]:
    """The metadata, which are those that were written, of a format that is read here."""
    try:
        length = int.from_bytes(content[:8], 'little')
        metadata = json.loads(content[8:8 + length])['__metadata__']
        known, version = metadata.get('format'), metadata.get('format_version')
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        known, version = None, None
    if known != FORMAT:
        raise _error(path, 'is damaged, or no packed checkpoint of mmaqd')
    if version not in FORMAT_VERSIONS:
        raise CheckpointError(
            f'Packed checkpoint {path!r} is of format version {version!r}, and this mmaqd '
            f'({__version__}) reads versions {" and ".join(FORMAT_VERSIONS)}: take the mmaqd that '
            f'wrote it ({metadata.get("mmaqd_version", "unknown")}), or pack the checkpoint again.')
    if _checksum(metadata) != metadata.get('checksum'):
        raise _error(path, 'is damaged: its metadata have another checksum than was saved')
    return metadata


def _checked_tensors(content: bytes, metadata: Mapping[str, str], path: str) -> dict[str, Tensor]:
    safetensors = _safetensors('read')
    try:
        tensors = safetensors.load(content)
        expected = metadata['checksums'].split()
    except Exception as error:  # of a kind of safetensors' own, or whatever damage leads to
        raise _error(path, f'is damaged or cut off ({error})') from error
    for key, checksum in zip_longest(sorted(tensors), expected):
        if key is None or checksum is None or _digest(key, tensors[key]) != checksum:
            raise _error(path, f'is damaged: {key} has another checksum than was saved')
    return tensors


def _unpacked(tensors: Mapping[str, Tensor], layers: Mapping[str, Any]) -> dict[str, Tensor]:
    state = dict(tensors)
    for key, layer in layers.items():
        grid, shape = IntegerGrid(*layer['grid']), torch.Size(layer['shape'])
        indices = unpack(tensors[key], grid.bit_width, shape.numel())
        if indices.numel() and int(indices.max()) >= grid.num_codes:
            raise ValueError(f'{key} holds an index that is no code of {grid}')
        codes = grid.codes(indices).view(shape)
        scale = _spread_scale(tensors, key, codes, layer.get('axis', 0))
        if scale.dtype not in (torch.float32, torch.float64):
            raise ValueError(f'{key} has a scale of {scale.dtype}, expected float32 or float64')
        state[key] = codes.to(scale.dtype).mul_(scale)
    return state


def _spread_scale(state: Mapping[str, Tensor], key: str, like: Tensor, axis: int) -> Tensor:
    scale = state[f'{key.rpartition(".")[0]}.weight_quantizer.{STORED_SCALE}']
    return per_channel(scale, like, axis if scale.dim() else None)


def _aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys of tensors that a key before has too, as layers under two names have."""
    first: dict[tuple, str] = {}
    found = {}
    for key, value in state.items():
        same = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and first.setdefault(same, key) != key:
            found[key] = first[same]
    return found


def _located(state: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    if isinstance(map_location, (str, torch.device)):
        return {key: value.to(map_location) for key, value in state.items()}
    return state


def _digest(key: str, tensor: Tensor) -> str:
    content = hashlib.sha256(f'{key} {tensor.dtype} {tuple(tensor.shape)} '.encode())
    content.update(bytes(tensor.reshape(-1).view(torch.uint8).numpy()))
    return content.hexdigest()[:16]


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header in the order of the keys, which else is a random one."""
    end = 8 + int.from_bytes(content[:8], 'little')
    header = _json(json.loads(content[8:end])).encode()
    header += b' ' * (-len(header) % 8)
    return len(header).to_bytes(8, 'little') + header + content[end:]


def _checksum(metadata: Mapping[str, str]) -> str:
    covered = {key: value for key, value in metadata.items() if key != 'checksum'}
    return hashlib.sha256(_json(covered).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(',', ':'))


def _safetensors(purpose: str) -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'To {purpose} packed checkpoints, safetensors is needed: pip '
                                  'install safetensors') from error
    return safetensors.torch


def _error(path: str, what: str) -> CheckpointError:
    return CheckpointError(f'Packed checkpoint {path!r} {what}: {_PACK_AGAIN}.')
