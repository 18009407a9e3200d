"""What all quantizers share: learned parameters, their start, and the state in checkpoints."""
from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Iterator, Mapping, Optional

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel, IntegerGrid, fake_quantize, least_error_interval
from mmaqd.functional.kernels import compute_dtype
from mmaqd.functional.liq import MIN_INTERVAL

STARTS = ('least_error', 'max', 'constant')
_SAMPLES_PER_CALL = 2**13
_MAX_START_FRACTION = 0.8


class UninitializedIntervalError(RuntimeError):
    """A quantizer was used before its interval had a value."""


class CheckpointMismatchError(ValueError):
    """A checkpoint was made by another model than the one that loads it."""


class Quantizer(nn.Module):
    """Base of the quantizers: float tensor to fake-quantized float tensor.

    A family derives its quantizers from :class:`WeightQuantizer` and :class:`ActivationQuantizer`.
    It gives them a kernel, learned parameters and, where the parameters are no intervals, the
    property :attr:`interval`.

    Args:
        kernel: The quantization itself.
        start: Where the learned parameters start, one of :attr:`starts`. ``'least_error'``: least
            squared error on the samples seen while calibrating. ``'max'``: clipping at 0.8 max|x|,
            averaged over the calls seen. ``'constant'``: ``start_values``, at once. A family may
            have others.
        start_values: The learned parameters in the order in which the kernel takes them, each with
            its value for ``start='constant'``. The first one is positive and is kept so.
        num_channels: Number of values of each parameter, None for one value.

    Attributes:
        interval: Largest magnitude that can be represented, () or (num_channels,).
        initialized: Buffer, bool: whether the parameters have their start (or learned) values.
        bits: Buffer, the bit width, by which a checkpoint of other bits is recognized.
        learned: Names of the learned parameters.
        constants: Names of the buffers that a checkpoint must have the same values of.
        name: Name of the quantizer in its model, for messages.

    Raises:
        ValueError: ``start`` is unknown or the value to start from is not positive.
    """

    #: What ``start`` may be
    starts: tuple[str, ...] = STARTS

    def __init__(self,
                 kernel: FakeQuantizeKernel,
                 start: str,
                 start_values: Mapping[str, float],
                 num_channels: Optional[int] = None) -> None:
        super().__init__()
        if start not in self.starts:
            raise ValueError(f'{type(self).__name__}: start must be one of {self.starts}, but got '
                             f'{start!r}.')
        length = next(iter(start_values.values()), 1)
        if not length > 0:
            raise ValueError(f'{type(self).__name__}: start_value must be positive, but got '
                             f'{length!r}.')
        self.kernel = kernel
        self.start = start
        self.name = type(self).__name__
        self.learned = tuple(start_values)
        shape = () if num_channels is None else (num_channels, )
        for name, value in start_values.items():
            self.register_parameter(name, nn.Parameter(torch.full(shape, float(value))))
        self.register_buffer('initialized', torch.tensor(start == 'constant'))
        self.constants: tuple[str, ...] = ()
        self._add_constant('bits', kernel.bit_width)
        self.calibrating = False
        self._samples: list[Tensor] = []
        self._known_initialized = False

    @property
    def bit_width(self) -> int:
        """Number of bits of a code."""
        return self.kernel.bit_width

    @property
    def grid(self) -> IntegerGrid:
        """The integer codes."""
        return self.kernel.grid

    @property
    def qmax(self) -> int:
        """Largest code."""
        return self.grid.qmax

    @property
    def scale(self) -> Tensor:
        """Real value of one integer step, the shape of the interval; not differentiable."""
        return self.kernel.scale(*[parameter.detach() for parameter in self.learned_parameters])

    @property
    def granularity(self) -> str:
        """``'per_tensor'`` or ``'per_channel'``."""
        return 'per_channel' if self.interval.dim() else 'per_tensor'

    @property
    def kernel_parameters(self) -> tuple[Tensor, ...]:
        """What :attr:`kernel` takes besides the tensor.

        Raises:
            UninitializedIntervalError: They have no values yet.
        """
        # The buffer is read once, not in every forward: on a GPU each look would wait for it.
        if not self._known_initialized:
            if not bool(self.initialized):
                raise UninitializedIntervalError(
                    f'{self.name}: the interval was never initialized. Train with the hook '
                    'mmaqd.InitializeIntervalsHook, run mmaqd.quantizers.calibrate(model, '
                    'batches), or load the checkpoint of a trained low-bit model (a float '
                    'checkpoint has no intervals).')
            self._known_initialized = True
        return self.learned_parameters

    def begin_training_step(self) -> None:
        """Keep the first parameter positive: the optimizer may have stepped below zero.

        Called by what is about to use the parameters; in evaluation it does nothing.
        """
        if self.training and self.learned:
            # `.data`, because a shared conv has saved this parameter for the backward pass when it
            # comes here for the next level.
            getattr(self, self.learned[0]).data.clamp_(min=MIN_INTERVAL)

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating:
            self.observe(x)
            return x
        self.begin_training_step()
        return fake_quantize(x, self.kernel, *self.kernel_parameters)

    @torch.no_grad()
    def quantize(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, so that ``codes * scale`` is the fake-quantized tensor."""
        return self.kernel.codes(compute_dtype(x), *self.kernel_parameters).to(self.grid.dtype)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take samples of ``x``, from which the parameters will start; an empty ``x`` gives none.
        """
        if x.numel():
            self._samples.append(self._sample(self._rows(compute_dtype(x))))

    @torch.no_grad()
    def initialize(self) -> None:
        """Start the learned parameters from the samples observed, and forget these.

        Raises:
            UninitializedIntervalError: Nothing was observed.
        """
        if not self._samples:
            raise UninitializedIntervalError(
                f'{self.name}: no data reached the quantizer while calibrating. Is its layer '
                'used in the forward pass? If not, exclude it by a rule.')
        samples = torch.cat(self._samples, dim=1)
        self._samples = []
        if not samples.any():
            print_log(
                f'{self.name}: only zeros were seen while calibrating; the interval starts '
                'at 1.',
                'current',
                level=30)
        self._start_from(samples)
        self.initialized.fill_(True)

    def agrees_with(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state with the keys of this quantizer has the same constants."""
        return all(int(state[name]) == int(getattr(self, name)) for name in self.constants)

    def _add_constant(self, name: str, value: int) -> None:
        self.register_buffer(name, torch.tensor(value))
        self.constants += (name, )

    @property
    def learned_parameters(self) -> tuple[Tensor, ...]:
        """The parameters as they are, with values or without."""
        return tuple([getattr(self, name) for name in self.learned])

    def _rows(self, x: Tensor) -> Tensor:
        """(R, N) view of what is quantized, a row for each interval."""
        raise NotImplementedError

    def _fake_quantize_rows(self, rows: Tensor, length: Tensor) -> Tensor:
        """The rows (R, N), each clipped at its length (R,) and fake-quantized."""
        raise NotImplementedError

    def _from_length(self, length: Tensor) -> Tensor:
        """Value of the first learned parameter with which ``length`` gets the code qmax."""
        return length

    def _length(self, rows: Tensor) -> Tensor:
        """Length (R,) to clip the rows (R, N) of one call at, by the statistic ``start``."""
        return _MAX_START_FRACTION * rows.abs().amax(dim=1)

    def _sample(self, rows: Tensor) -> Tensor:
        """What is kept of the rows (R, N) of one call, (R, K)."""
        return _subsample(rows) if self.start == 'least_error' else self._length(rows)[:, None]

    def _start_from(self, samples: Tensor) -> None:
        """Set the learned parameters from the samples (R, K) of all calls."""
        if self.start == 'least_error':
            length = least_error_interval(samples, self._fake_quantize_rows)
        else:
            mean = samples.mean(dim=1)
            length = torch.where(mean > 0, mean, torch.ones_like(mean))
        first = self.learned_parameters[0]
        first.copy_(self._from_length(length).view_as(first))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any,
                              **kwargs: Any) -> None:
        state = {
            key[len(prefix):]: value
            for key, value in state_dict.items() if key.startswith(prefix)
        }
        if state:
            self.check_state(prefix[:-1] or self.name, state)
        else:  # A float checkpoint: the parameters are calibrated after loading.
            state_dict.update(self.state_dict(prefix=prefix))
        self._known_initialized = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        for parameter in self.learned_parameters[:1]:
            # As the next step of training would; what is saved can be loaded.
            parameter.data.clamp_(min=MIN_INTERVAL)
        super()._save_to_state_dict(*args, **kwargs)

    def check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Refuse the state of another quantizer.

        Args:
            name: Name of this quantizer in its model, for messages.
            state: State dict of one quantizer.

        Raises:
            CheckpointMismatchError: It has other keys, bits, shapes or constants.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise CheckpointMismatchError(
                f'{name}: the checkpoint holds another quantizer, with {", ".join(sorted(state))}; '
                f'the {type(self).__name__} of the model has {", ".join(sorted(own))}. Use the '
                'config that the checkpoint was trained with, or start from a float checkpoint.')
        if int(state['bits']) != self.bit_width:
            raise CheckpointMismatchError(
                f'{name}: the checkpoint holds a quantizer of {int(state["bits"])} bits, the model '
                f'has one of {self.bit_width} bits. Use the config that the checkpoint was trained '
                'with, or start from a float checkpoint.')
        for key in self.learned:
            if state[key].shape != own[key].shape:
                raise CheckpointMismatchError(
                    f'{name}: the {key} of the checkpoint has the shape '
                    f'{tuple(state[key].shape)}, that of the model {tuple(own[key].shape)}. Set '
                    'axis (None: one value; 0: one per output channel) as in the config that the '
                    'checkpoint was trained with.')

    def extra_repr(self) -> str:
        start = f', start={self.start!r}' if self.learned else ''
        signed = ', signed' if 'signed' in self.constants else ''
        return f'bit_width={self.bit_width}{signed}, {self.granularity}{start}'


class WeightQuantizer(Quantizer):
    """Base of the quantizers of weights: signed codes, per tensor or per output channel."""

    def observe(self, x: Tensor) -> None:
        self._samples.clear()  # weights are the same in every call
        super().observe(x)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(max(self.interval.numel(), 1), -1)

    def _fake_quantize_rows(self, rows: Tensor, length: Tensor) -> Tensor:
        return replace(self.kernel, axis=0).forward(rows, self._from_length(length))


class ActivationQuantizer(Quantizer):
    """Base of the quantizers of activations: unsigned codes (or signed ones), per tensor.

    A checkpoint of signed codes has the buffer ``signed``.
    """

    def __init__(self,
                 kernel: FakeQuantizeKernel,
                 start: str,
                 start_values: Mapping[str, float],
                 num_channels: Optional[int] = None) -> None:
        super().__init__(kernel, start, start_values, num_channels)
        if kernel.grid.signed:  # else no buffer: checkpoints made before there was the choice load
            self._add_constant('signed', 1)

    def _check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        given, own = ('signed' if 'signed' in each else 'unsigned'
                      for each in (state, self.constants))
        if given != own and {*state, 'signed'} == {*self.state_dict(), 'signed'}:
            raise CheckpointMismatchError(
                f'{name}: the checkpoint holds a quantizer with {given} codes, the model has one '
                f'with {own} codes. Set signed as in the config that the checkpoint was trained '
                'with, or start from a float checkpoint.')
        super()._check_state(name, state)

    def observe(self, x: Tensor) -> None:
        if not self.kernel.takes_negative and x.numel() and x.min() < 0:
            raise ValueError(
                f'{self.name}: quantizes to unsigned codes, so its input must not be negative, '
                f'but it holds {x.min().item():.4g}. Feed the layer by a ReLU (for an FPN: '
                "act_cfg=dict(type='ReLU')), give it a quantizer that takes negative inputs "
                '(signed=True of LIQ and LSQ, or mmaqd.LSQPlusActivationQuantizer), or leave its '
                'input in float by a rule with input_quantizer=None.')
        super().observe(x)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)

    def _fake_quantize_rows(self, rows: Tensor, length: Tensor) -> Tensor:
        return self.kernel.forward(rows, self._from_length(length))


def channels_along(axis: Optional[int], num_channels: Optional[int], owner: str) -> Optional[int]:
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


def _subsample(rows: Tensor) -> Tensor:
    wanted = max(_SAMPLES_PER_CALL // rows.shape[0], 256)
    # Odd: a step that is a multiple of the width of a map would sample one column of it.
    step = rows.shape[1] // wanted | 1
    return rows[:, ::step].clone()


@contextmanager
def calibrating(model: nn.Module) -> Iterator[list[Quantizer]]:
    """Let the quantizers of ``model`` that have no interval yet observe what passes through.

    Inside the block these quantizers pass their input on unchanged. At its end their parameters
    start from what they saw. Quantizers that are initialized already are left alone.

    Yields:
        The quantizers that observe; empty when all are initialized.
    """
    pending = [
        module for module in model.modules()
        if isinstance(module, Quantizer) and not bool(module.initialized)
    ]
    for quantizer in pending:
        quantizer.calibrating = True
        quantizer._samples.clear()  # of a calibration that failed
    try:
        yield pending
    finally:
        for quantizer in pending:
            quantizer.calibrating = False
    for quantizer in pending:
        quantizer.initialize()
