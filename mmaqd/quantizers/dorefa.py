"""DoReFa, arXiv:1606.06160: fixed ranges, so nothing is learned and nothing is initialized."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from mmaqd.functional import DoReFaActivationKernel, DoReFaWeightKernel, check_bit_width
from mmaqd.registry import QUANTIZERS

from .base import Quantizer
from .roles import ActivationQuantizer, WeightQuantizer


class _FixedQuantizer(Quantizer):
    """Quantizer without learned parameters."""

    @property
    def scale(self) -> Tensor:
        """Real value of one integer step, ()."""
        scale = self.kernel.scale(*self.learned_parameters)
        return scale if isinstance(scale, Tensor) else self._constant(scale)

    def _constant(self, value: float) -> Tensor:
        return torch.tensor(value, device=self.bits.device)


@QUANTIZERS.register_module()
class DoReFaActivationQuantizer(_FixedQuantizer, ActivationQuantizer):
    """DoReFa of a non-negative tensor: x is clipped to [0, c] and rounded to c q/n, q in 0..n.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
        clip: c. The paper has 1, for activations that are bounded by 1; after BN and ReLU, as in a
            detector, a larger one loses less.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> quantizer = DoReFaActivationQuantizer(bit_width=2)
        >>> quantizer.quantize(torch.tensor([0.1, 0.4, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    def __init__(self, bit_width: int, clip: float = 1.0) -> None:
        owner = type(self).__name__
        check_bit_width(bit_width, 2, owner)
        if not 0 < clip < math.inf:
            raise ValueError(f'{owner}: clip must be positive and finite, but got {clip!r}.')
        super().__init__(DoReFaActivationKernel(bit_width, float(clip)), 'constant', {})

    @property
    def interval(self) -> Tensor:
        """The clipping length c, ()."""
        return self._constant(self.kernel.clip)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, clip={self.kernel.clip}'


@QUANTIZERS.register_module()
class DoReFaWeightQuantizer(_FixedQuantizer, WeightQuantizer):
    """DoReFa of weights: tanh(w) / max|tanh(w)| is rounded to k/n.

    Up to 7 bits k is odd, -n..n with n = 2^b - 1 (zero is no grid point); at 8 bits k is an integer
    of -127..127 and n = 127, so that the codes fit int8 (narrow range; the paper has odd k there
    too).

    The quantized weights reach from -1 to 1 whatever the scale of w is. A BN after the conv takes
    that back. A conv without one, as the prediction convs of a detector, gives outputs of another
    scale than in the float model that its weights come from; give such convs another quantizer.

    Args:
        bit_width: b, 2 to 8. (For one bit the paper has another formula.)

    Raises:
        ValueError: ``bit_width`` is out of its range.

    Example:
        >>> quantizer = DoReFaWeightQuantizer(2)
        >>> quantizer.quantize(torch.tensor([-2.0, -0.1, 0.1, 0.5]))
        tensor([-3, -1,  1,  1], dtype=torch.int8)
    """

    def __init__(self, bit_width: int) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        super().__init__(DoReFaWeightKernel(bit_width), 'constant', {})

    @property
    def interval(self) -> Tensor:
        """Largest magnitude that can be represented, 1."""
        return self._constant(1.0)
