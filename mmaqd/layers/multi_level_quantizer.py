"""Own intervals for every pyramid level, at the inputs of shared convs."""
from __future__ import annotations

from typing import Any

from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel
from mmaqd.quantizers import ActivationQuantizer, build_quantizer
from mmaqd.registry import QUANTIZERS

from .multi_level import MultiLevelModule


@QUANTIZERS.register_module()
class MultiLevelQuantizer(MultiLevelModule):
    """One quantizer per pyramid level for the inputs of a conv that the levels share.

    Each level starts, learns and keeps its own interval, as ``self[level]``. The checkpoint of a
    model with one interval for all levels is copied to every level when it is loaded.

    Args:
        num_levels: Number of pyramid levels, at least 1.
        quantizer: Config of the quantizer of a level, one for activations.

    Raises:
        ValueError: ``num_levels`` is not a positive integer.
        TypeError: ``quantizer`` is no quantizer for activations, or no config.
        RuntimeError: It was called without a level.
    """

    #: What it has one of, as a quantizer's ``granularity`` says.
    granularity = 'per_level'

    def __init__(self, num_levels: int, quantizer: dict) -> None:
        super().__init__(lambda: _build(quantizer), num_levels)
        self.name = type(self).__name__

    @property
    def name(self) -> str:
        """Name in its model, for messages; that of a level has the level behind it."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        for level, quantizer in enumerate(self):
            quantizer.name = f'{name}.{level}'

    @property
    def kernel(self) -> FakeQuantizeKernel:
        """The quantization itself, the same at all levels."""
        return self[0].kernel

    @property
    def bit_width(self) -> int:
        """Number of bits of a code."""
        return self.kernel.bit_width

    @property
    def kernel_parameters(self) -> tuple[Tensor, ...]:
        """What :attr:`kernel` takes besides the tensor, at the current level."""
        return self.current.kernel_parameters

    @property
    def learned_parameters(self) -> tuple[Tensor, ...]:
        """Those of the current level, with values or without."""
        return self.current.learned_parameters

    @property
    def scale(self) -> Tensor:
        """Real value of one integer step at the current level, ()."""
        return self.current.scale

    def quantize(self, x: Tensor) -> Tensor:
        """Integer codes of ``x`` at the current level."""
        return self.current.quantize(x)

    def extra_repr(self) -> str:
        return f'num_levels={self.num_levels}'


def _build(cfg: Any) -> ActivationQuantizer:
    quantizer = build_quantizer(cfg) if isinstance(cfg, dict) else cfg
    if not isinstance(cfg, dict) or not isinstance(quantizer, ActivationQuantizer):
        raise TypeError('MultiLevelQuantizer: quantizer must be the config of a quantizer for '
                        "activations, such as dict(type='mmaqd.LIQActivationQuantizer', "
                        f'bit_width=4), but got {cfg!r}. (Weights are the same at all levels.)')
    return quantizer
