"""The two roles of a quantizer: of weights and of activations."""
from __future__ import annotations

from inspect import signature
from typing import Any, Mapping

from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel

from .base import Quantizer
from .errors import CheckpointMismatchError
from .stored import StoresCodes
from .watch import InputWatch, can_look


class WeightQuantizer(StoresCodes, Quantizer):
    """Base of the quantizers of weights: signed codes, per tensor or per output channel."""

    #: Whether a config says itself that a norm takes back what the quantizer does to the scale
    norm_is_promised = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._add_stored_scale()

    @property
    def unscaled_cfg(self) -> dict:
        """Change of its config with which it quantizes the weights at their own scale."""
        return dict(type='mmaqd.LSQWeightQuantizer', bit_width=self.bit_width)

    def take_samples(self, x: Tensor) -> None:
        self._samples.clear()  # weights are the same in every call
        super().take_samples(x)

    @property
    def _source(self) -> str:
        return 'the weights hold'

    def _sample(self, rows: Tensor) -> Tensor:
        samples = super()._sample(rows)
        # Of pruned weights a part can be zero although they are not.
        missed = self.start == 'least_error' and (rows.any(dim=1) & ~samples.any(dim=1)).any()
        return rows if missed else samples

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(max(self.interval.numel(), 1), -1)


class ActivationQuantizer(Quantizer):
    """Base of the quantizers of activations: unsigned codes (or signed ones), per tensor.

    A checkpoint of signed codes has the buffer ``signed``.

    Attributes:
        lowest: Smallest input that was seen while calibrating, at most 0.
    """

    def __init__(self,
                 kernel: FakeQuantizeKernel,
                 start: str,
                 start_values: Mapping[str, float],
                 num_channels: int | None = None) -> None:
        super().__init__(kernel, start, start_values, num_channels)
        if kernel.grid.signed:  # else no buffer: checkpoints made before there was the choice load
            self._add_constant('signed', 1)
        self.lowest = 0.0
        self._watch = InputWatch()

    @property
    def signed_cfg(self) -> dict:
        """Change of its config with which negative inputs are quantized too."""
        if 'signed' in signature(type(self)).parameters:
            return dict(signed=True)
        return dict(type='mmaqd.LSQPlusActivationQuantizer', bit_width=self.bit_width)

    @property
    def complaint(self) -> str:
        """What is wrong with negative inputs."""
        return (f'{self.name}: quantizes to unsigned codes, so its input must not be negative, '
                f'but it holds {self.lowest:.4g}. Feed the layer by a ReLU (for an FPN: '
                "act_cfg=dict(type='ReLU')), give it a quantizer that takes negative inputs "
                '(signed=True of LIQ and LSQ, or mmaqd.LSQPlusActivationQuantizer), or leave its '
                'input in float by a rule with input_quantizer=None.')

    def check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """As :meth:`Quantizer.check_state`; other signedness is refused too."""
        given, own = ('signed' if 'signed' in each else 'unsigned'
                      for each in (state, self.constants))
        if given != own and {*state, 'signed'} == {*self.state_dict(), 'signed'}:
            raise CheckpointMismatchError(
                f'{name}: the checkpoint holds a quantizer with {given} codes, the model has one '
                f'with {own} codes. Set signed as in the config that the checkpoint was trained '
                'with, or start from a float checkpoint.')
        super().check_state(name, state)

    def watch(self, x: Tensor) -> None:
        """Look whether an input that will be quantized is clipped at zero, and warn once if so.

        It looks at the first input after the quantizer was built or loaded and, in training, at
        every 101st, so that it costs next to nothing.
        """
        if self._watch.is_due(self.training) and not self.kernel.takes_negative and can_look(x):
            self._watch.warn_of_negative(self.name, x)

    def forward(self, x: Tensor) -> Tensor:
        self.watch(x)
        return super().forward(x)

    def inspect(self, x: Tensor) -> None:
        if self.look(x) < 0 and not self.kernel.takes_negative:
            raise ValueError(self.complaint)

    def look(self, x: Tensor) -> float:
        lowest = super().look(x)
        if not self.kernel.takes_negative:
            self.lowest = min(self.lowest, lowest)
        return lowest

    def forget(self) -> None:
        super().forget()
        self.lowest = 0.0

    @property
    def _source(self) -> str:
        return 'its input holds'

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._watch = InputWatch()

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)


def channels_along(axis: int | None, num_channels: int | None, owner: str) -> int | None:
    """Number of values of a learned parameter of weights: None, or ``num_channels`` with an axis.

    Raises:
        ValueError: ``axis`` is neither None nor 0, or comes without ``num_channels``.
    """
    if axis not in (None, 0):
        raise ValueError(f'{owner}: axis must be None (per tensor) or 0 (per output channel), '
                         f'but got {axis!r}.')
    if axis is not None and num_channels is None:
        raise ValueError(f'{owner}: axis={axis} needs num_channels, the size of the weight '
                         'along it.')
    return None if axis is None else num_channels
