"""Learned interval quantization (LIQ), arXiv:2007.06919."""
from __future__ import annotations

from typing import Mapping

from torch import Tensor

from mmaqd.functional import LIQActivationKernel, LIQWeightKernel, check_bit_width
from mmaqd.registry import QUANTIZERS

from .errors import CheckpointMismatchError
from .roles import ActivationQuantizer, WeightQuantizer, channels_along

_NORMALIZATIONS = ('w', 'w/std', '(w - mean)/std')


@QUANTIZERS.register_module()
class LIQActivationQuantizer(ActivationQuantizer):
    """LIQ of a non-negative tensor: x is clipped to [0, v] and rounded to v q/n, q in 0..n.

    With ``signed=True`` of a tensor of either sign: x is clipped to [-v, v], q in -n..n.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1, signed 2^(b-1) - 1.
        start: ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`Quantizer`.
        start_value: The interval to start from with ``start='constant'``.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), as LSQ does; N is the
            number of features of one sample.
        signed: For inputs that can be negative, where no ReLU is in front of the conv.

    Attributes:
        interval: v, the learned parameter, ().

    Raises:
        ValueError: An argument is out of its range; a negative input while calibrating, unless
            signed.

    Example:
        >>> import torch
        >>> quantizer = LIQActivationQuantizer(bit_width=2, start='constant', start_value=1.5)
        >>> quantizer.quantize(torch.tensor([0.1, 0.6, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    def __init__(self,
                 bit_width: int,
                 start: str = 'least_error',
                 start_value: float = 1.0,
                 gradient_factor: bool = False,
                 signed: bool = False) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        kernel = LIQActivationKernel(bit_width, gradient_factor, signed)
        super().__init__(kernel, start, dict(interval=start_value))


@QUANTIZERS.register_module()
class LIQWeightQuantizer(WeightQuantizer):
    """LIQ of weights: w is clipped to [-v, v] and rounded to v k/n.

    Up to 7 bits k is odd, -n..n with n = 2^b - 1 (zero is no grid point); at 8 bits k is an integer
    of -127..127 and n = 127, so that the codes fit int8 (narrow range).

    Args:
        bit_width: b, 1 to 8.
        normalize: Quantize (w - mean)/std of the whole tensor, for a conv whose BN takes the scale
            back. Turn it off where no BN follows.
        axis: None for one interval; 0 for one per output channel.
        num_channels: Size of the weight along ``axis``. A :class:`mmaqd.layers.QuantConv2d` and a
            config need not give it.
        start: ``'least_error'``, ``'max'`` or ``'constant'``, see :class:`Quantizer`.
        start_value: The interval to start from with ``start='constant'``.
        gradient_factor: Multiply the gradient of the interval by 1/sqrt(N n), as LSQ does; N is the
            number of weights that share it. None: where the weights are not normalized, since a
            step of the optimizer can be larger than their small intervals.
        center: False: normalize to w/std. With the BN behind it the conv then computes what it
            did in float, but for the rounding, where the mean is lost otherwise.

    Attributes:
        interval: v, the learned parameter, () or (num_channels,).
        normalization: Buffer; 0: none, 1: w/std, 2: (w - mean)/std. A checkpoint with another one
            is refused.

    Raises:
        ValueError: An argument is out of its range, or ``axis`` comes without ``num_channels``.

    Example:
        >>> import torch
        >>> quantizer = LIQWeightQuantizer(2, normalize=False, start='constant', start_value=1.5)
        >>> quantizer.quantize(torch.tensor([-9.0, -0.1, 0.1, 1.1]))
        tensor([-3, -1,  1,  3], dtype=torch.int8)
    """

    def __init__(self,
                 bit_width: int,
                 normalize: bool = True,
                 axis: int | None = None,
                 num_channels: int | None = None,
                 start: str = 'least_error',
                 start_value: float = 1.0,
                 gradient_factor: bool | None = None,
                 center: bool = True) -> None:
        owner = type(self).__name__
        check_bit_width(bit_width, 1, owner)
        channels = channels_along(axis, num_channels, owner)
        if gradient_factor is None:
            gradient_factor = not normalize
        kernel = LIQWeightKernel(bit_width, normalize, axis, gradient_factor, center)
        super().__init__(kernel, start, dict(interval=start_value), channels)
        self._add_constant('normalization', int(normalize) + int(normalize and center))

    @property
    def unscaled_cfg(self) -> dict:
        return dict(normalize=False)

    def check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """As :meth:`Quantizer.check_state`; another normalization is refused too."""
        super().check_state(name, state)
        if not self.agrees_with(state):
            known = dict(enumerate(_NORMALIZATIONS))
            found, own = (
                known.get(int(each), f'an unknown normalization ({int(each)})')
                for each in (state['normalization'], self.normalization))
            raise CheckpointMismatchError(
                f'{name}: the checkpoint was trained with {found} quantized, the model quantizes '
                f'{own}. Set normalize and center as in the config that it was trained with, or '
                'start from a float checkpoint.')

    def _rows(self, x: Tensor) -> Tensor:
        return super()._rows(self.kernel.normalized(x))
