"""Learned interval quantization (LIQ), arXiv:2007.06919."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional

import torch
from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, check_bit_width
from mmaqd.registry import QUANTIZERS

from .base import IntervalQuantizer


@QUANTIZERS.register_module()
class LIQActivationQuantizer(IntervalQuantizer):
    """LIQ of a non-negative tensor: x is clipped to [0, v] and rounded to v q/n, q in 0..n.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
        start: ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`IntervalQuantizer`.
        start_value: The interval to start from with ``start='constant'``.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), as LSQ does.

    Raises:
        ValueError: An argument is out of its range; a negative input while calibrating.

    Example:
        >>> quantizer = LIQActivationQuantizer(bit_width=2, start='constant', start_value=1.5)
        >>> quantizer.quantize(torch.tensor([0.1, 0.6, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    #: dtype of :meth:`quantize`
    code_dtype = torch.uint8

    def __init__(self,
                 bit_width: int,
                 start: str = 'least_error',
                 start_value: float = 1.0,
                 gradient_factor: bool = False) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        super().__init__(LIQActivationKernel(bit_width, gradient_factor), None, start, start_value)

    def observe(self, x: Tensor) -> None:
        if x.numel() and x.min() < 0:
            raise ValueError(
                f'{self.name}: quantizes to unsigned codes, so its input must not be negative, '
                f'but it holds {x.min().item():.4g}. Feed the layer by a ReLU (for an FPN: '
                "act_cfg=dict(type='ReLU')), or leave its input in float by a rule with "
                'input_quantizer=None.')
        super().observe(x)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)

    def _fake_quantize_rows(self, rows: Tensor, interval: Tensor) -> Tensor:
        return self.kernel.forward(rows, interval)


@QUANTIZERS.register_module()
class LIQWeightQuantizer(IntervalQuantizer):
    """LIQ of weights: w is clipped to [-v, v] and rounded to v k/n.

    Up to 7 bits k is odd, -n..n with n = 2^b - 1 (no zero level); at 8 bits k is an integer of
    -127..127 and n = 127, so that the codes fit int8 (narrow range).

    Args:
        bit_width: b, 1 to 8.
        normalize: Quantize (w - mean)/std of the whole tensor, for a conv whose BN takes the scale
            back. Turn it off where no BN follows.
        axis: None for one interval; 0 for one per output channel.
        num_channels: Size of the weight along ``axis``. A :class:`mmaqd.layers.QuantConv2d` and a
            config need not give it.
        start: ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`IntervalQuantizer`.
        start_value: The interval to start from with ``start='constant'``.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), as LSQ does.

    Raises:
        ValueError: An argument is out of its range, or ``axis`` comes without ``num_channels``.

    Example:
        >>> quantizer = LIQWeightQuantizer(2, normalize=False, start='constant', start_value=1.5)
        >>> quantizer.quantize(torch.tensor([-9.0, -0.1, 0.1, 1.1]))
        tensor([-3, -1,  1,  3], dtype=torch.int8)
    """

    #: dtype of :meth:`quantize`
    code_dtype = torch.int8

    def __init__(self,
                 bit_width: int,
                 normalize: bool = True,
                 axis: Optional[int] = None,
                 num_channels: Optional[int] = None,
                 start: str = 'least_error',
                 start_value: float = 1.0,
                 gradient_factor: bool = False) -> None:
        owner = type(self).__name__
        check_bit_width(bit_width, 1, owner)
        if axis not in (None, 0):
            raise ValueError(f'{owner}: axis must be None (per tensor) or 0 (per output channel), '
                             f'but got {axis!r}.')
        if axis is not None and num_channels is None:
            raise ValueError(f'{owner}: axis={axis} needs num_channels, the size of the weight '
                             'along it.')
        kernel = LIQWeightKernel(bit_width, normalize, axis, gradient_factor)
        super().__init__(kernel, None if axis is None else num_channels, start, start_value)

    def observe(self, x: Tensor) -> None:
        self._samples.clear()  # weights are the same in every call
        super().observe(x)

    def _rows(self, x: Tensor) -> Tensor:
        return self.kernel.normalized(x).reshape(max(self.interval.numel(), 1), -1)

    def _fake_quantize_rows(self, rows: Tensor, interval: Tensor) -> Tensor:
        return replace(self.kernel, axis=0, normalize=False).forward(rows, interval)
