"""Spoil checkpoints at random and load them: python -m tests.faults.checkpoint_mutations.

Each file must load with the numbers that it holds, or raise an error of ours that names it and
leave the model as it was; and nothing in it may run.
"""
from __future__ import annotations

import io
import random
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any, Callable, Mapping

import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from tests.helpers.detector import build, build_calibrated, model_cfg

from .mutation_bench import OF_BYTES, MutationBench, Stored, by_name, run, same_numbers


class Call:
    """An object that touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker, )


def make_content() -> dict:
    """What a small low-bit run saves, without its optimizer."""
    info = dict(cfg='model = dict()', epoch=1, iter=3)
    return dict(
        state_dict=build_calibrated('RetinaNet', 4, seed=5).state_dict(),
        meta=dict(epoch=1, iter=3, cfg='model = dict()', seed=0, dataset_meta=dict(classes='abc')),
        message_hub=dict(
            log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])},
            runtime_info=info,
            resumed_keys=dict.fromkeys(info, True)))


def _data(content: Any) -> bytearray:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return bytearray(buffer.getvalue())


# -- what happens to the archive -------------------------------------------------------------------


def flip_bit_of_directory(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(data.rfind(b'PK\x06\x06') - 20000, len(data))] ^= 1 << rng.randrange(8)
    return data


# -- what happens to a pickle, with right checksums: a file that was made to deceive ---------------


def flip_bits_of_pickle(data: bytearray, rng: random.Random) -> bytearray:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, 'w') as new:
        for info in old.infolist():
            record = bytearray(old.read(info))
            if info.filename.endswith('data.pkl'):
                record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
            new.writestr(info.filename, bytes(record))
    return bytearray(changed.getvalue())


# -- what happens to keys and values ---------------------------------------------------------------


def _key(content: dict, rng: random.Random, part: str = '') -> str:
    return rng.choice([key for key in content['state_dict'] if part in key])


def delete_key(content: dict, rng: random.Random, marker: Path) -> None:
    del content['state_dict'][_key(content, rng)]


def rename_key(content: dict, rng: random.Random, marker: Path) -> None:
    key = _key(content, rng)
    content['state_dict'][key + 's'] = content['state_dict'].pop(key)


def change_value(content: dict, rng: random.Random, marker: Path) -> None:
    state, key = content['state_dict'], _key(content, rng)
    changes: list[Callable[[Tensor], Any]] = [
        lambda x: x[None], lambda x: x.flatten()[:1], lambda x: x.double() + 1e-12, Tensor.bool,
        Tensor.int, Tensor.half, lambda x: x.float() * torch.nan, lambda x: x.float() + torch.inf,
        lambda x: x.to('meta'), Tensor.to_sparse, Tensor.tolist, str, lambda x: None, lambda x: -x
        if x.dtype != torch.bool else ~x, lambda x: x * 0, lambda x: x.to(torch.complex64),
        lambda x: nn.Parameter(x.float())
    ]
    state[key] = rng.choice(changes)(state[key])


def spoil_one_number(content: dict, rng: random.Random, marker: Path) -> None:
    key = _key(content, rng, 'weight')
    value = content['state_dict'][key] = content['state_dict'][key].clone().float()
    value.view(-1)[rng.randrange(value.numel())] = rng.choice((torch.nan, torch.inf, -torch.inf))


def spoil_interval(content: dict, rng: random.Random, marker: Path) -> None:
    key = _key(content, rng, '.interval')
    content['state_dict'][key] = torch.tensor(rng.choice((0., -0.1, torch.nan, torch.inf)))


def change_part(content: dict, rng: random.Random, marker: Path) -> None:
    hub = content['message_hub']
    part = rng.choice([content, content['meta'], hub, hub['runtime_info']])
    key = rng.choice(list(part))
    part[key] = rng.choice((None, 3, 'text', [], {}, torch.ones(2), dict(a=1)))


def add_code(content: dict, rng: random.Random, marker: Path) -> None:
    places = [
        content, content['meta'], content['state_dict'], content['message_hub'],
        content['message_hub']['log_scalars']
    ]
    rng.choice(places)['more'] = Call(marker)


def add_text(content: dict, rng: random.Random, marker: Path) -> None:
    text = f'open({str(marker)!r}, "w")'
    content['meta'].update(config=text, cfg=text)
    content['message_hub']['runtime_info']['cfg'] = text


OF_ARCHIVE = (*OF_BYTES, flip_bit_of_directory)
OF_CONTENT = (delete_key, rename_key, change_value, spoil_one_number, spoil_interval, change_part,
              add_code, add_text)


class CheckpointBench(MutationBench):
    """Spoils checkpoints of a small low-bit model."""

    suffix = '.pth'
    kinds = by_name(*OF_ARCHIVE, flip_bits_of_pickle, *OF_CONTENT)

    def __init__(self, folder: Path, seed: int = 0) -> None:
        super().__init__(folder, build(model_cfg('RetinaNet', 4), seed=9), seed)
        self.content = make_content()
        self.data = _data(self.content)

    def _write(self, spoil: Callable) -> Stored:
        if spoil in OF_CONTENT:
            content = deepcopy(self.content)
            spoil(content, self.rng, self.marker)
            torch.save(content, self.path)
            return content.get('state_dict')
        self.path.write_bytes(spoil(bytearray(self.data), self.rng))
        return None if spoil is flip_bits_of_pickle else self.content['state_dict']

    def _same(self, state: Mapping[str, Tensor], stored: Any) -> bool:
        return isinstance(stored, dict) and same_numbers(state, stored)


if __name__ == '__main__':
    run(CheckpointBench, __doc__)
