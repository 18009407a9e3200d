"""Size of the weights and number of bit operations of a detector, from its quantization table.

The table is that of :func:`mmaqd.models.quantization_table.quantization_table`.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from mmengine.config import Config

from mmaqd.engine.pipelines import evaluation_pipeline
from mmaqd.models.quantization_table import LayerQuantization

_FLOAT_BITS = 32
_SHOWN = 4


def packed_weight_bytes(rows: Iterable[LayerQuantization]) -> int:
    """Bytes that the weights take when each layer's codes are packed without gaps.

    The sum over the layers of ceil(num_weights * weight_bits / 8). Biases, normalization and
    intervals are not counted.

    Args:
        rows: The quantization table.

    Returns:
        Number of bytes.
    """
    return sum((row.num_weights * row.weight_bits + 7) // 8 for row in rows)


def bit_operations(rows: Iterable[LayerQuantization], macs: Mapping[str, int]) -> int:
    """Bit operations: the sum over the layers of MACs x weight bits x input bits.

    Args:
        rows: The quantization table.
        macs: MACs by module name, from :func:`count_macs`.

    Returns:
        Number of bit operations; layers that did not run count nothing.

    Raises:
        KeyError: If a module in ``macs`` has no row.
    """
    return sum(layer.bit_operations for layer in layer_sizes(rows, macs))


@dataclass(frozen=True)
class LayerSize:
    """Size and work of one layer, and what they are for the same layer in float.

    Attributes:
        module: Name in the model.
        weight_bits: Bits of a weight, 32 for float.
        input_bits: Bits of an input value, 32 for float, 8 for the image.
        num_weights: Number of weights, without the bias.
        macs: Multiply-accumulates in a forward pass, 0 for a layer that did not run.
    """

    module: str
    weight_bits: int
    input_bits: int
    num_weights: int
    macs: int

    @property
    def is_float(self) -> bool:
        """Whether it multiplies in float: weights, input or both have 32 bits."""
        return max(self.weight_bits, self.input_bits) >= _FLOAT_BITS

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, packed."""
        return packed_weight_bytes([self])

    @property
    def bit_operations(self) -> int:
        """MACs x weight bits x input bits."""
        return self.macs * self.weight_bits * self.input_bits

    @property
    def float_weight_bytes(self) -> int:
        """Bytes of the weights in float32."""
        return self.num_weights * _FLOAT_BITS // 8

    @property
    def float_bit_operations(self) -> int:
        """MACs x 32 x 32."""
        return self.macs * _FLOAT_BITS**2


def layer_sizes(rows: Iterable[LayerQuantization], macs: Mapping[str, int]) -> list[LayerSize]:
    """Size and work of every layer.

    Args:
        rows: The quantization table.
        macs: MACs by module name, from :func:`count_macs`.

    Returns:
        In the order of the table.

    Raises:
        KeyError: If a module in ``macs`` has no row.
    """
    table = list(rows)
    missing = sorted(set(macs) - {row.module for row in table})
    if missing:
        raise KeyError(f'No row of the quantization table for {missing}; the table and the counts '
                       'must come from models with the same module names.')
    return [
        LayerSize(row.module, row.weight_bits, row.input_bits, row.num_weights,
                  macs.get(row.module, 0)) for row in table
    ]


def with_float_work(rows: Iterable[LayerQuantization],
                    macs: Mapping[str, int]) -> list[LayerQuantization]:
    """The rows, and a row in float for each module that multiplies without weights of its own.

    Args:
        rows: The quantization table.
        macs: MACs by module name, of the same model.

    Returns:
        Rows for everything in ``macs``.
    """
    table = list(rows)
    known = {row.module for row in table}
    return table + [
        LayerSize(name, _FLOAT_BITS, _FLOAT_BITS, 0, work)
        for name, work in macs.items() if name not in known
    ]


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a test image as it enters the detector of a config.

    Args:
        cfg: A config whose test pipeline has a ``Resize`` with a ``scale``.

    Returns:
        The scale of that ``Resize`` (width x height), padded to a multiple of
        the data preprocessor's ``pad_size_divisor``.

    Raises:
        ValueError: There is no such ``Resize``, or no pipeline for evaluation.
    """
    divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    for step in evaluation_pipeline(cfg):
        if step['type'].split('.')[-1] == 'Resize' and step.get('scale'):
            width, height = (-(-side // divisor) * divisor for side in step['scale'])
            return height, width
    raise ValueError('The test pipeline of the config has no Resize with a scale, so the size of '
                     'an image is not known; give it (--shape HEIGHT WIDTH).')


def size_table(layers: Sequence[LayerSize]) -> list[dict[str, Any]]:
    """A row for each layer and one for their total, rows for :func:`mmaqd.analysis.format_rows`.

    Args:
        layers: From :func:`layer_sizes`.

    Returns:
        Integers, and a share of the MACs in percent; the columns that start
        with ``float`` are those of the float twin.
    """
    all_macs = sum(layer.macs for layer in layers)
    rows = [{
        'layer': layer.module,
        'weight bits': layer.weight_bits,
        'input bits': layer.input_bits,
        'weights': layer.num_weights,
        'bytes': layer.weight_bytes,
        'float bytes': layer.float_weight_bytes,
        'MACs': layer.macs,
        'MACs (%)': _percent(layer.macs, all_macs),
        'bit operations': layer.bit_operations,
        'float bit operations': layer.float_bit_operations,
    } for layer in layers]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != 'layer'}
    total.update({
        'weight bits': None,
        'input bits': None,
        'MACs (%)': _percent(all_macs, all_macs)
    })
    return [*rows, {'layer': 'total', **total}]


def size_summary(layers: Sequence[LayerSize]) -> str:
    """The totals, how much smaller they are than those of the float twin, and what is in float.

    Args:
        layers: From :func:`layer_sizes`.

    Returns:
        Weights in MB (10^6 bytes) and bit operations in 10^9.
    """
    size = sum(layer.weight_bytes for layer in layers)
    float_size = sum(layer.float_weight_bytes for layer in layers)
    work = sum(layer.bit_operations for layer in layers)
    float_work = sum(layer.float_bit_operations for layer in layers)
    return (
        f'Weights: {size / 1e6:.2f} MB, the float twin {float_size / 1e6:.2f} MB '
        f'({float_size / size:.1f} times as much). Bit operations: {work / 1e9:.1f} x 10^9, the '
        f'float twin {float_work / 1e9:.1f} x 10^9 ({float_work / work:.1f} times as many).'
        f'{_float_rest(layers)}')


def _float_rest(layers: Sequence[LayerSize]) -> str:
    """What multiplies in float although something is quantized, the largest part first."""
    rest = sorted((layer for layer in layers if layer.is_float and layer.macs),
                  key=lambda layer: -layer.macs)
    if not rest or all(layer.is_float for layer in layers):
        return ''
    share = _percent(sum(layer.macs for layer in rest), sum(layer.macs for layer in layers))
    names = ', '.join(layer.module or 'the detector itself' for layer in rest[:_SHOWN])
    more = f', ... ({len(rest)} in all)' if len(rest) > _SHOWN else ''
    return f' In float are {share:.1f}% of the MACs: {names}{more}.'


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
