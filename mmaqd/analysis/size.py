"""Size of the weights and number of bit operations of a detector, from its quantization table.

A row of that table is anything with the attributes ``module``, ``weight_bits``, ``input_bits`` and
``num_weights``, as :func:`mmaqd.conversion.quantization_table` gives them.
"""
from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional, Protocol

import torch.nn as nn


class TableRow(Protocol):
    """What is needed of a row: name, bits (32 for float) and number of weights of a layer."""

    module: str
    weight_bits: int
    input_bits: int
    num_weights: int


def packed_weight_bytes(rows: Iterable[TableRow]) -> int:
    """Bytes that the weights take when each layer's codes are packed without gaps.

    The sum over the layers of ceil(num_weights * weight_bits / 8). Biases, normalization and
    intervals are not counted.

    Args:
        rows (Iterable[TableRow]): The quantization table.

    Returns:
        int: Number of bytes.
    """
    return sum((row.num_weights * row.weight_bits + 7) // 8 for row in rows)


def count_macs(model: nn.Module, *inputs: Any) -> dict[str, int]:
    """Multiply-accumulates of every conv in one forward pass.

    A conv that is shared over the pyramid levels counts once for each level.

    Args:
        model (nn.Module): Model whose ``Conv2d`` layers are counted.
        *inputs (Any): What its ``forward`` takes.

    Returns:
        dict[str, int]: Number for the whole batch by module name, without convs that did not run.
    """
    macs: dict[str, int] = {}

    def counter(name: str):

        def count(module: nn.Conv2d, _: Any, output: Any) -> None:
            taps = module.weight[0].numel()
            macs[name] = macs.get(name, 0) + output.numel() * taps

        return count

    handles = [
        module.register_forward_hook(counter(name)) for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return macs


def bit_operations(rows: Iterable[TableRow],
                   macs: Mapping[str, int],
                   input_bits: Optional[Mapping[str, int]] = None) -> int:
    """Bit operations: the sum over the layers of MACs x weight bits x input bits.

    Args:
        rows (Iterable[TableRow]): The quantization table.
        macs (Mapping[str, int]): MACs by module name, from :func:`count_macs`.
        input_bits (Mapping[str, int], optional): Bits of inputs that need no quantizer because
            they are integers already, such as 8 for the first conv's image.

    Returns:
        int: Number of bit operations; layers that did not run count nothing.

    Raises:
        KeyError: If a module in ``macs`` or ``input_bits`` has no row.
    """
    table = {row.module: row for row in rows}
    known = dict(input_bits or {})
    missing = sorted(set(macs).union(known) - set(table))
    if missing:
        raise KeyError(f'bit_operations: no row of the table for {missing}; the table and the '
                       'counts must come from models with the same module names.')
    return sum(count * table[name].weight_bits * known.get(name, table[name].input_bits)
               for name, count in macs.items())
