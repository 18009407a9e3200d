"""What all quantizers share: learned parameters, their first values, the state in checkpoints."""
from __future__ import annotations

import math
from typing import Any, Mapping

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel, IntegerGrid, fake_quantize, least_error_interval
from mmaqd.functional.kernels import compute_dtype
from mmaqd.functional.liq import MIN_INTERVAL

from .errors import CheckpointMismatchError, UninitializedIntervalError
from .samples import Samples

STARTS = ('least_error', 'max', 'constant')
_SAMPLES_PER_CALL = 2**13
_MAX_START_FRACTION = 0.8


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
        is_fresh: Whether its values come from no checkpoint and nobody looked at its data yet.
        initialized: Buffer, bool: whether the parameters have their first (or learned) values.
        bits: Buffer, the bit width, by which a checkpoint of other bits is recognized.
        learned: Names of the learned parameters.
        constants: Names of the buffers that a checkpoint must have the same values of.
        name: Name of the quantizer in its model, for messages.

    Raises:
        ValueError: ``start`` is unknown or the value to start from is not positive.
    """

    #: What ``start`` may be
    starts: tuple[str, ...] = STARTS
    #: Keys that a state of the quantizer may have or lack
    optional_state: tuple[str, ...] = ()

    def __init__(self,
                 kernel: FakeQuantizeKernel,
                 start: str,
                 start_values: Mapping[str, float],
                 num_channels: int | None = None) -> None:
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
        self.is_fresh = True
        self._samples = Samples()
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
        if not self._known_initialized and not bool(self.initialized):
            raise UninitializedIntervalError(self._uninitialized)
        return self.learned_parameters

    def __getattr__(self, name: str) -> Any:
        # Python comes here after a property has raised an AttributeError.
        if name == 'kernel_parameters':
            raise UninitializedIntervalError(self._uninitialized)
        return super().__getattr__(name)

    @property
    def _uninitialized(self) -> str:
        counting = (' (To count the operations of a config, take mmaqd report size CONFIG, which '
                    'needs no intervals.)')
        return (f'{self.name}: the interval was never initialized. Train with the hook '
                'mmaqd.InitializeIntervalsHook, run mmaqd.quantizers.calibrate(model, batches), or '
                'load the checkpoint of a trained low-bit model (a float checkpoint has no '
                f'intervals).{counting if torch.jit.is_tracing() else ""}')

    def parameters_for(self, x: Tensor) -> tuple[Tensor, ...]:
        """:attr:`kernel_parameters`, for a tensor that is quantized next.

        In training the first one is kept positive: the optimizer may have stepped below zero.

        Raises:
            UninitializedIntervalError: They have no values yet.
        """
        parameters = self.learned_parameters
        # The buffer is read once, not in every forward: on a GPU each look would wait for it.
        if not self._known_initialized:
            parameters = self.kernel_parameters
            self._known_initialized = True
        if self.training and parameters:
            # `.data`, because a shared conv has saved this parameter for the backward pass when it
            # comes here for the next level. At every call: fused optimizers count no version.
            parameters[0].data.clamp_(min=MIN_INTERVAL)
        return parameters

    def forward(self, x: Tensor) -> Tensor:
        return self.fake_quantize(x)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """The grid points of ``x``, of its shape and dtype."""
        return fake_quantize(x, self.kernel, *self.parameters_for(x))

    @torch.no_grad()
    def quantize(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, so that ``codes * scale`` is the fake-quantized tensor."""
        return self.kernel.codes(compute_dtype(x), *self.kernel_parameters).to(self.grid.dtype)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take samples of ``x``, to be initialized from; an empty ``x`` gives none.

        Raises:
            ValueError: It holds NaN, infinity or negative values although the codes are unsigned.
        """
        if x.numel():
            self.inspect(x)
            self.take_samples(x)

    def inspect(self, x: Tensor) -> None:
        """Refuse a tensor, not an empty one, that nothing can be initialized from.

        Raises:
            ValueError: It holds NaN, infinity or negative values although the codes are unsigned.
        """
        self.look(x)

    def take_samples(self, x: Tensor) -> None:
        """Take samples of ``x``, which is not empty, whatever it holds."""
        self._samples.add(self._sample(self._rows(compute_dtype(x))))

    def look(self, x: Tensor) -> float:
        """The smallest value of ``x``, which is not empty.

        Raises:
            ValueError: It holds NaN or infinity.
        """
        lowest, highest = torch.stack(torch.aminmax(compute_dtype(x.detach()))).tolist()
        if not math.isfinite(lowest) or not math.isfinite(highest):
            raise ValueError(
                f'{self.name}: {self._source} NaN or infinity while calibrating. It is the first '
                'place where one was seen: look at the checkpoint and the images that were loaded, '
                'and at the layer in front of it.')
        return lowest

    @torch.no_grad()
    def initialize(self) -> None:
        """Give the learned parameters their first values, from the samples observed; forget these.

        Raises:
            UninitializedIntervalError: Nothing was observed.
        """
        if not self._samples:
            raise UninitializedIntervalError(
                f'{self.name}: no data reached the quantizer while calibrating. Is its layer '
                'used in the forward pass? If not, exclude it by a rule.')
        samples = self._samples.take()
        if not samples.any():
            print_log(
                f'{self.name}: only zeros were seen while calibrating; the interval starts '
                f'at {self._length_of_zeros:g}.',
                'current',
                level=30)
        self._initialize_from(samples)
        self.initialized.fill_(True)
        self.is_fresh = False

    def forget(self) -> None:
        """Forget what was observed."""
        self._samples.clear()

    @property
    def has_samples(self) -> bool:
        """Whether anything was observed."""
        return bool(self._samples)

    def agrees_with(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state with the keys of this quantizer has the same constants."""
        return all(int(state[name]) == int(getattr(self, name)) for name in self.constants)

    def _add_constant(self, name: str, value: int) -> None:
        self.register_buffer(name, torch.tensor(value))
        self.constants += (name, )

    @property
    def learned_parameters(self) -> tuple[Tensor, ...]:
        """The parameters as they are, with values or without."""
        parameters = self._parameters  # as getattr, in a fraction of its time
        return tuple([parameters[name] for name in self.learned])

    @property
    def _source(self) -> str:
        """What is quantized, as the start of a sentence about what it holds."""
        raise NotImplementedError

    @property
    def _length_of_zeros(self) -> float:
        """Length to clip a row of zeros at: they must stay zero, or next to it without a code 0."""
        return 1.0 if self.grid.has_zero else MIN_INTERVAL

    def _rows(self, x: Tensor) -> Tensor:
        """(R, N) view of what is quantized, a row for each interval."""
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

    def _initialize_from(self, samples: Tensor) -> None:
        """Set the learned parameters from the samples (R, K) of all calls."""
        if self.start == 'least_error':
            length = least_error_interval(samples, self.grid)
        else:
            length = samples.mean(dim=1)
        length = torch.where(samples.any(dim=1), length, self._length_of_zeros)
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
            self.is_fresh = not bool(state['initialized'])
        self._become(state)
        if not state:  # A float checkpoint: the parameters are calibrated after loading.
            state_dict.update(self.state_dict(prefix=prefix))
        self._known_initialized = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        for name in self.learned[:1]:
            # As the next step of training would; what is saved can be loaded.
            getattr(self, name).data.clamp_(min=MIN_INTERVAL)
        super()._save_to_state_dict(*args, **kwargs)

    def _become(self, state: Mapping[str, Tensor]) -> None:
        """Become what a state, which was checked, is loaded into."""

    def check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Refuse the state of another quantizer.

        Args:
            name: Name of this quantizer in its model, for messages.
            state: State dict of one quantizer.

        Raises:
            CheckpointMismatchError: It has other keys, bits, shapes or constants.
        """
        own, state = ({key: value for key, value in each.items() if key not in self.optional_state}
                      for each in (self.state_dict(), state))  # yapf: disable
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


def _subsample(rows: Tensor) -> Tensor:
    wanted = max(_SAMPLES_PER_CALL // rows.shape[0], 256)
    # Odd: a step that is a multiple of the width of a map would sample one column of it.
    step = rows.shape[1] // wanted | 1
    return rows[:, ::step].clone()
