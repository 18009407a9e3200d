"""What the benches of spoiled files share: damage to bytes, what came of it, a table."""
from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any, Callable, Mapping

import torch
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmaqd.checkpoints import CheckpointError, CheckpointMismatchError

_PAGE = 4096

#: What a file holds: the state of a model; None where only the kind of the outcome is looked at.
Stored = Mapping[str, Any] | None


class MutationBench:
    """Spoils one file after the other and loads it into a model.

    Attributes:
        kinds: What may happen to a file, by name.
    """

    suffix: str
    kinds: Mapping[str, Callable]

    def __init__(self, folder: Path, model: nn.Module, seed: int = 0) -> None:
        self.model = model
        self.path, self.marker = folder / f'spoiled{self.suffix}', folder / 'marker'
        self.rng = random.Random(seed)

    def outcome(self, kind: str) -> str:
        """``'equal'``, ``'refused'``, or what must not be."""
        stored, model = self._write(self.kinds[kind]), deepcopy(self.model)
        try:
            load_checkpoint(model, str(self.path), map_location='cpu')
        except (CheckpointError, CheckpointMismatchError) as error:
            found = 'refused' if str(self.path) in str(error) else 'an error without the file'
            changed = not self._same(model.state_dict(), self.model.state_dict())
            found = 'refused, but the model is changed' if changed else found
        except Exception as error:
            found = f'a raw {type(error).__name__}'
        else:
            found = 'equal' if stored is None or self._same(model.state_dict(), stored) else (
                'other numbers than stored')
        return 'something ran' if self.marker.exists() else found

    def _write(self, spoil: Callable) -> Stored:
        """Write the spoiled file; what is stored in it."""
        raise NotImplementedError

    def _same(self, state: Mapping[str, Tensor], stored: Mapping[str, Any]) -> bool:
        """Whether a model has the numbers that are stored."""
        raise NotImplementedError


def same_numbers(state: Mapping[str, Tensor], stored: Mapping[str, Any]) -> bool:
    """Whether a state has the numbers that are stored, which BN's counts of batches may lack."""
    return all(key.endswith('num_batches_tracked') for key in state if key not in stored) and all(
        isinstance(value, Tensor) and torch.equal(state[key], value.to(state[key].dtype))
        and torch.equal(state[key].to(value.dtype), value) for key, value in stored.items())


def run(bench_class: Callable[[Path, int], MutationBench], description: str) -> None:
    """The command line of a bench: spoil many files, print how often what came of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--count', type=int, default=5000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    outcomes: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_class(Path(folder), args.seed)
        kinds = list(bench.kinds)
        for index in range(args.count):
            kind = kinds[index % len(kinds)]
            outcomes[kind, bench.outcome(kind)] += 1
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f'| {kind} | {outcome} | {count} |')


def by_name(*functions: Callable) -> dict[str, Callable]:
    """Functions by their names."""
    return {function.__name__: function for function in functions}


# -- what happens to bytes: the file is as a disk or a network leaves it ---------------------------


def flip_bit(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def zero_page(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data)) // _PAGE * _PAGE
    data[at:at + _PAGE] = bytes(len(data[at:at + _PAGE]))
    return data


def random_bytes(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) - 64)
    data[at:at + 64] = rng.randbytes(64)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[:rng.randrange(len(data))]


def drop_bytes(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at:at + rng.choice((1, 8, 512))]
    return data


def append_bytes(data: bytearray, rng: random.Random) -> bytearray:
    return data + rng.randbytes(rng.choice((1, 100, 70000)))


OF_BYTES = (flip_bit, zero_page, random_bytes, truncate, drop_bytes, append_bytes)
