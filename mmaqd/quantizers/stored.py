"""Quantizers of weights of which only the codes are left, as a packed file has them."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from mmaqd.functional import FakeQuantizeKernel, StoredWeightKernel

from .errors import CheckpointMismatchError

#: Key, in the state of a quantizer, of the scale of stored codes.
STORED_SCALE = 'stored_scale'


class PackedWeightsError(RuntimeError):
    """Weights of which only the codes are left can't be trained."""


class StoresCodes:
    """The part of a quantizer of weights that lets it stand for weights that are grid points.

    Where it has a :attr:`stored_scale`, the weights that it is given are ``codes * stored_scale``;
    they are quantized to themselves, whatever the family, and training is refused. The learned
    parameters stay what they were. Loading a state with or without the scale decides.

    Attributes:
        stored_scale: Buffer; None, or the scale of the codes, () or (num_channels,).
    """

    #: Keys that a state of the quantizer may have or lack.
    optional_state = (STORED_SCALE, )
    stored_scale: Tensor | None
    kernel: FakeQuantizeKernel

    def _add_stored_scale(self) -> None:
        self._family_kernel = self.kernel
        self.register_buffer(STORED_SCALE, None)

    @property
    def learned_parameters(self) -> tuple[Tensor, ...]:
        """What the kernel takes: learned parameters, or the scale of stored codes."""
        if self.stored_scale is None:
            # Not super(): torch.compile knows no property of it.
            return tuple([getattr(self, name) for name in self.learned])
        return (self.stored_scale, )

    @torch.no_grad()
    def store_codes(self, weight: Tensor) -> None:
        """Overwrite ``weight`` by its grid points; from here on they are all that is known of it.

        Args:
            weight: The weights of the layer, any shape.

        Raises:
            UninitializedIntervalError: The quantizer has no interval yet.
            ValueError: The grid points are not a scale times codes.
        """
        points = self(weight)
        scale = self.scale.detach().clone()
        kernel = self._stored_kernel(scale)
        offset = self.kernel.offset(*self.learned_parameters)
        if offset is not None or not torch.equal(kernel.forward(points, scale), points):
            raise ValueError(f'{self.name}: the grid points of a {type(self).__name__} are not a '
                             'scale times codes, so they can\'t be stored as codes.')
        weight.copy_(points)
        self._take_stored_scale(scale)

    def parameters_for(self, x: Tensor) -> tuple[Tensor, ...]:
        """As for :class:`Quantizer`, but training of stored codes is refused."""
        if self.training and self.stored_scale is not None:
            raise PackedWeightsError(
                f'{self.name}: the weights come from a packed file, which holds their '
                f'{self.bit_width}-bit codes and not the float weights that training goes on '
                'from: changes smaller than a step would be lost. Train from the checkpoint that '
                'was packed, or add dict(type=\'mmaqd.TrainPackedHook\') to custom_hooks to '
                'start from the grid points.')
        return super().parameters_for(x)

    def check_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """As :meth:`Quantizer.check_state`; the scale of stored codes must be one."""
        super().check_state(name, state)
        scale = state.get(STORED_SCALE)
        shapes = ((), self.interval.shape)
        if scale is not None and (scale.shape not in shapes or not scale.isfinite().all() or
                                  (scale <= 0).any()):
            raise CheckpointMismatchError(
                f'{name}: the {STORED_SCALE} of the checkpoint has the shape {tuple(scale.shape)} '
                f'and the least value {float(scale.min()) if scale.numel() else "none"}; expected '
                f'positive numbers of the shape {tuple(shapes[-1])}. Pack the checkpoint again.')

    def extra_repr(self) -> str:
        stored = '' if self.stored_scale is None else ', stored codes'
        return f'{super().extra_repr()}{stored}'

    def _become(self, state: Mapping[str, Tensor]) -> None:
        scale = state.get(STORED_SCALE)
        self._take_stored_scale(None if scale is None else scale.detach().clone())

    def _take_stored_scale(self, scale: Tensor | None) -> None:
        if scale is not None:
            self.stored_scale = scale.to(self.bits.device)
            self.kernel = self._stored_kernel(scale)
        elif self.stored_scale is not None:
            self.stored_scale = None
            self.kernel = self._family_kernel

    def _stored_kernel(self, scale: Tensor) -> StoredWeightKernel:
        grid = self.grid
        return StoredWeightKernel((grid.qmin, grid.qmax, grid.step), 0 if scale.dim() else None)
