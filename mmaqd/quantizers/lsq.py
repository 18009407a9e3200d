"""Learned step size quantization: LSQ, arXiv:1902.08153, and LSQ+, arXiv:2004.09576."""
from __future__ import annotations

import torch
from torch import Tensor

from mmaqd.functional import (LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel,
                              check_bit_width, least_error_step_size_and_offset)
from mmaqd.registry import QUANTIZERS

from .base import STARTS, Quantizer
from .roles import ActivationQuantizer, WeightQuantizer, channels_along


class StepSizeQuantizer(Quantizer):
    """Quantizer whose first learned parameter is the step size, with the start of LSQ's paper."""

    starts = ('mean', *STARTS)

    @property
    def interval(self) -> Tensor:
        """Largest magnitude that can be represented, the shape of the step size."""
        return self.scale * self.grid.magnitude

    def _from_length(self, length: Tensor) -> Tensor:
        return length / self.qmax

    def _length(self, rows: Tensor) -> Tensor:
        if self.start == 'mean':
            return 2 * rows.abs().mean(dim=1) * self.qmax**0.5
        return super()._length(rows)


@QUANTIZERS.register_module()
class LSQActivationQuantizer(StepSizeQuantizer, ActivationQuantizer):
    """LSQ of a non-negative tensor: x is rounded to s q, q in 0..n.

    With ``signed=True`` of a tensor of either sign: q in -n - 1..n. The gradient of s is multiplied
    by 1/sqrt(N n); N is the number of features of one sample.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1, signed 2^(b-1) - 1.
        start: ``'mean'``: s = 2 mean|x| / sqrt(n) as in the paper, averaged over the calls seen;
            or ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`Quantizer`.
        start_value: The step size to start from with ``start='constant'``.
        signed: For inputs that can be negative, where no ReLU is in front of the conv.

    Attributes:
        step_size: s, the learned parameter, ().

    Raises:
        ValueError: An argument is out of its range; a negative input while calibrating, unless
            signed.

    Example:
        >>> quantizer = LSQActivationQuantizer(bit_width=2, start='constant', start_value=0.5)
        >>> quantizer.quantize(torch.tensor([0.1, 0.6, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    def __init__(self,
                 bit_width: int,
                 start: str = 'mean',
                 start_value: float = 1.0,
                 signed: bool = False) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        kernel = LSQActivationKernel(bit_width, signed)
        super().__init__(kernel, start, dict(step_size=start_value))


@QUANTIZERS.register_module()
class LSQWeightQuantizer(StepSizeQuantizer, WeightQuantizer):
    """LSQ of weights: w is rounded to s k, with integers k of -n - 1..n.

    The gradient of s is multiplied by 1/sqrt(N n); N is the number of weights that share it.

    Args:
        bit_width: b, 2 to 8; n = 2^(b-1) - 1.
        axis: None for one step size as in the paper; 0 for one per output channel.
        num_channels: Size of the weight along ``axis``. A :class:`mmaqd.layers.QuantConv2d` and a
            config need not give it.
        start: ``'mean'``: s = 2 mean|w| / sqrt(n) as in the paper; or ``'least_error'``,
            ``'max'`` or ``'constant'``, see :class:`Quantizer`.
        start_value: The step size to start from with ``start='constant'``.

    Attributes:
        step_size: s, the learned parameter, () or (num_channels,).

    Raises:
        ValueError: An argument is out of its range, or ``axis`` comes without ``num_channels``.

    Example:
        >>> quantizer = LSQWeightQuantizer(2, start='constant', start_value=0.5)
        >>> quantizer.quantize(torch.tensor([-9.0, -0.6, 0.1, 1.1]))
        tensor([-2, -1,  0,  1], dtype=torch.int8)
    """

    def __init__(self,
                 bit_width: int,
                 axis: int | None = None,
                 num_channels: int | None = None,
                 start: str = 'mean',
                 start_value: float = 1.0) -> None:
        owner = type(self).__name__
        check_bit_width(bit_width, 2, owner)
        channels = channels_along(axis, num_channels, owner)
        kernel = LSQWeightKernel(bit_width, axis)
        super().__init__(kernel, start, dict(step_size=start_value), channels)


@QUANTIZERS.register_module()
class LSQPlusWeightQuantizer(LSQWeightQuantizer):
    """LSQ+ of weights: :class:`LSQWeightQuantizer` with a start from mean and standard deviation.

    Args:
        bit_width: b, 2 to 8.
        axis: None for one step size as in the paper; 0 for one per output channel.
        num_channels: Size of the weight along ``axis``, as for LSQ.
        start: ``'three_sigma'``: s = max(|mean - 3 std|, |mean + 3 std|) / 2^(b-1) as in the paper;
            or ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`Quantizer`.
        start_value: The step size to start from with ``start='constant'``.

    Attributes:
        step_size: s, the learned parameter, () or (num_channels,).

    Raises:
        ValueError: An argument is out of its range, or ``axis`` comes without ``num_channels``.
    """

    starts = ('three_sigma', *STARTS)

    def __init__(self,
                 bit_width: int,
                 axis: int | None = None,
                 num_channels: int | None = None,
                 start: str = 'three_sigma',
                 start_value: float = 1.0) -> None:
        super().__init__(bit_width, axis, num_channels, start, start_value)

    def _length(self, rows: Tensor) -> Tensor:
        if self.start == 'three_sigma':
            mean, std = rows.mean(dim=1), rows.std(dim=1, correction=0)
            return (mean.abs() + 3 * std) * (self.qmax / -self.grid.qmin)
        return super()._length(rows)


@QUANTIZERS.register_module()
class LSQPlusActivationQuantizer(StepSizeQuantizer, ActivationQuantizer):
    """LSQ+ of a tensor of either sign: x is rounded to s q + beta, q in 0..n.

    The fake-quantized tensor is ``codes * scale + offset``, and a conv pads it with the number 0,
    which is a grid point only if beta is a multiple of s. The offset is what makes negative numbers
    representable, so there is no option ``signed`` as LSQ has.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
        start: ``'least_error'``: s and beta with the least squared error on the samples seen while
            calibrating, as in the paper. ``'constant'``: s = ``start_value`` and beta = 0, at once.
        start_value: The step size to start from with ``start='constant'``.

    Attributes:
        step_size: s, learned, ().
        offset: beta, learned, ().

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> quantizer = LSQPlusActivationQuantizer(2)
        >>> quantizer.observe(torch.tensor([-0.25, 0.25, 0.75, 1.25]))
        >>> quantizer.initialize()
        >>> quantizer.quantize(torch.tensor([-0.25, 0.2, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    starts = ('least_error', 'constant')

    def __init__(self,
                 bit_width: int,
                 start: str = 'least_error',
                 start_value: float = 1.0) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        super().__init__(
            LSQPlusActivationKernel(bit_width), start, dict(step_size=start_value, offset=0.0))

    @property
    def interval(self) -> Tensor:
        """Largest magnitude that can be represented, ()."""
        lowest = self.offset.detach()
        return torch.maximum(lowest.abs(), (lowest + self.scale * self.qmax).abs())

    def _initialize_from(self, samples: Tensor) -> None:
        step_size, offset = least_error_step_size_and_offset(samples[0], self.qmax)
        self.step_size.copy_(step_size)
        self.offset.copy_(offset)
