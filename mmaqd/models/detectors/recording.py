"""Look at what modules return, without running them a second time."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator

import torch.nn as nn


@contextmanager
def record_outputs(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[Any]]]:
    """Record what submodules of ``model`` return within the block.

    Args:
        model: Any model.
        names: Names of its submodules.

    Yields:
        For each name the outputs, an item for each call; filled while the model runs.
    """
    outputs: dict[str, list[Any]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(_append_to(kept))
        for name, kept in outputs.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _append_to(kept: list[Any]) -> Callable:
    return lambda module, args, output: kept.append(output)
