"""Spoil packed files at random and load them: python -m tests.faults.packed_mutations.

Each file must load with the numbers that it holds, or raise an error of ours that names it and
leave the model as it was; and nothing in it may run. What is stored is read here by an own reader.
"""
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mmaqd.checkpoints import pack_state
from mmaqd.checkpoints import packed as format_of_files
from mmaqd.export import store_codes
from tests.helpers.detector import build, build_calibrated, model_cfg

from .mutation_bench import OF_BYTES, MutationBench, Stored, by_name, run, same_numbers

Tensors = dict[str, Tensor]
Metadata = dict[str, Any]


def make_file(marker: Path) -> bytes:
    """The packed file of a small low-bit model; its config, if it is run, writes the marker."""
    model = build_calibrated('RetinaNet', 4, seed=5)
    layouts = store_codes(model)
    return pack_state(model.state_dict(), layouts, dict(config=f'open({str(marker)!r}, "w")'))


def read(data: bytes) -> tuple[Tensors, Metadata]:
    """Tensors and metadata of a packed file, the layers as what their JSON says."""
    end = 8 + int.from_bytes(data[:8], 'little')
    metadata = json.loads(data[8:end])['__metadata__']
    return safetensors.torch.load(bytes(data)), {
        **metadata, 'layers': json.loads(metadata['layers'])
    }


def signed(tensors: Tensors, metadata: Metadata) -> bytes:
    """A file of these with the right checksums: one that was made to deceive."""
    digests = [format_of_files._digest(key, tensors[key]) for key in sorted(tensors)]
    metadata = {
        **metadata, 'layers': json.dumps(metadata['layers']),
        'checksums': ' '.join(digests)
    }
    metadata['checksum'] = format_of_files._checksum(metadata)
    return safetensors.torch.save(tensors, metadata)


def unpacked(tensors: Tensors, metadata: Metadata) -> Tensors:
    """The state that a file holds: weights are (qmin + step index) scale, b bits for each index.

    Raises:
        Exception: It holds none.
    """
    state = dict(tensors)
    for key, layer in metadata['layers'].items():
        qmin, qmax, step = layer['grid']
        bits = ((qmax - qmin) // step).bit_length()
        stream = np.unpackbits(tensors[key].numpy(), bitorder='little')
        numbers = stream[:np.prod(layer['shape']) * bits].reshape(-1, bits)
        codes = qmin + step * (numbers.astype(np.int64) << np.arange(bits)).sum(1)
        scale = tensors[key.replace('.weight', '.weight_quantizer.stored_scale')]
        spread = scale.reshape(-1, *[1] * (len(layer['shape']) - 1)) if scale.dim() else scale
        state[key] = torch.from_numpy(codes).reshape(layer['shape']).float() * spread
    return state


def flip_bit_of_header(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(8 + int.from_bytes(data[:8], 'little'))] ^= 1 << rng.randrange(8)
    return data


# -- what happens to tensors and metadata, with right checksums ------------------------------------


def delete_tensor(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    del tensors[rng.choice(list(tensors))]


def rename_tensor(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    key = rng.choice(list(tensors))
    tensors[key + 's'] = tensors.pop(key)


def change_tensor(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: x[None], lambda x: x.flatten()[:1], lambda x: x.double() + 1e-12, Tensor.bool,
        Tensor.int, Tensor.half, lambda x: x.float() * torch.nan, lambda x: x.float() + torch.inf,
        lambda x: -x if x.dtype != torch.bool else ~x, lambda x: x * 0
    ]
    key = rng.choice(list(tensors))
    tensors[key] = rng.choice(changes)(tensors[key]).clone()


def change_codes(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    codes = tensors[rng.choice(list(metadata['layers']))]
    codes[rng.randrange(codes.numel())] = rng.randrange(256)


def spoil_scale(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    key = rng.choice([key for key in tensors if key.endswith(('stored_scale', '.interval'))])
    tensors[key] = torch.full_like(tensors[key], rng.choice((0., -0.1, torch.nan, torch.inf)))


def change_layer(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    layers = metadata['layers']
    key = rng.choice(list(layers))
    grid, shape = layers[key]['grid'], layers[key]['shape']
    layers[key] = rng.choice([
        dict(grid=grid),
        dict(shape=shape), None, [], 'text',
        dict(grid=[grid[0] - 2, grid[1], grid[2]], shape=shape),
        dict(grid=[rng.randrange(-300, 300) for _ in range(3)], shape=shape),
        dict(grid=grid, shape=shape[::-1]),
        dict(grid=grid, shape=[10**9, 10**9]),
        dict(grid=grid, shape=shape, axis=rng.choice((1, 9, -1, 'first')))
    ])


def drop_layer(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    del metadata['layers'][rng.choice(list(metadata['layers']))]


def change_metadata(tensors: Tensors, metadata: Metadata, rng: random.Random) -> None:
    key = rng.choice(['aliases', 'parts', 'dataset_meta', 'config', 'format_version'])
    metadata[key] = rng.choice(('', 'text', '[]', '{}', '3', 'null', '{"a": "b"}', '{"a": ["b"]}'))


OF_BYTES_AND_HEADER = (*OF_BYTES, flip_bit_of_header)
OF_CONTENT = (delete_tensor, rename_tensor, change_tensor, change_codes, spoil_scale, change_layer,
              drop_layer, change_metadata)


class PackedBench(MutationBench):
    """Spoils packed files of a small low-bit model."""

    suffix = '.safetensors'
    kinds = by_name(*OF_BYTES_AND_HEADER, *OF_CONTENT)

    def __init__(self, folder: Path, seed: int = 0) -> None:
        super().__init__(folder, build(model_cfg('RetinaNet', 4), seed=9), seed)
        self.data = make_file(self.marker)

    def _write(self, spoil: Callable) -> Stored:
        if spoil in OF_BYTES_AND_HEADER:
            self.path.write_bytes(spoil(bytearray(self.data), self.rng))
            return unpacked(*read(self.data))
        tensors, metadata = read(self.data)
        spoil(tensors, metadata, self.rng)
        self.path.write_bytes(signed(tensors, metadata))
        try:
            return unpacked(tensors, metadata)
        except Exception:
            return {}  # what holds no state can't be equal to one

    def _same(self, state: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> bool:
        return bool(stored) and same_numbers(state, stored)


if __name__ == '__main__':
    run(PackedBench, __doc__)
