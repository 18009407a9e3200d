"""What all layers with quantizers for their weights and their input share."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from mmaqd.functional import FLOAT, ConvPlan, FakeQuantizeKernel, Geometry
from mmaqd.functional.blocks import is_compiling, is_exporting
from mmaqd.quantizers import Quantizer, build_quantizer

from .multi_level_quantizer import MultiLevelQuantizer

QuantizerCfg = dict | nn.Module | None

# The kernel, copies of the weights and the kernel's parameters, and what they were quantized to.
_Kept = tuple[FakeQuantizeKernel | None, tuple[Tensor, ...], Tensor | None]
_NOTHING_KEPT: _Kept = (None, (), None)

# Arguments of the geometry, and the plan.
_NOTHING_PLANNED: tuple[tuple | None, ConvPlan | None] = (None, None)


class _Float:
    """What a layer asks a quantizer for, where it has none."""

    kernel = FLOAT

    def watch(self, x: Tensor) -> None:
        pass

    def parameters_for(self, x: Tensor) -> tuple[()]:
        return ()


_FLOAT = _Float()
_KNOWN = (Quantizer, _Float)  # another module in place of a quantizer is called


def _same(kept: Sequence[Tensor], sources: Sequence[Tensor]) -> bool:
    return len(kept) == len(sources) and all(a.dtype == b.dtype and torch.equal(a, b)
                                             for a, b in zip(kept, sources))


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, set)) else value


class QuantLayer(nn.Module):
    """Base of the quantized layers, in front of the class of a float layer::

        class QuantConvTranspose2d(QuantLayer, nn.ConvTranspose2d, _ConvTransposeNd):
            ...

    The bases of the float class stand there too: MMEngine's ``init_cfg`` initializes a layer by its
    name or that of one of its bases, not by those of their bases.

    ``weight`` and ``bias`` keep their names, so that float checkpoints load. The bias is not
    quantized. A layer of a new kind says by :meth:`_operate` what it computes.

    In evaluation without gradients on a CPU the quantized weights are kept, together with a copy of
    what they were made from, until that changes. (On a GPU quantizing again costs less than
    comparing.)

    Args:
        *args, **kwargs: Those of the float layer.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self,
                 *args: Any,
                 weight_quantizer: QuantizerCfg = None,
                 input_quantizer: QuantizerCfg = None,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_quantizers(weight_quantizer, input_quantizer)

    @classmethod
    def from_float(cls,
                   layer: nn.Module,
                   weight_quantizer: QuantizerCfg = None,
                   input_quantizer: QuantizerCfg = None) -> QuantLayer:
        """The quantized twin of ``layer``, which shares its parameters and submodules."""
        twin = cls.__new__(cls)
        twin.__dict__.update({name: _copied(value) for name, value in vars(layer).items()})
        twin._set_quantizers(weight_quantizer, input_quantizer)
        for quantizer in (twin.weight_quantizer, twin.input_quantizer):
            if quantizer is not None:
                quantizer.train(layer.training).to(layer.weight.device)
        return twin

    @property
    def num_outputs(self) -> int:
        """Number of output channels, of which each can have an interval."""
        return self.weight.shape[0]

    @property
    def channels_first_weight(self) -> Tensor:
        """The weight as its quantizer takes it: the output channels are the first axis."""
        return self.weight

    @property
    def packed_axis(self) -> int:
        """Axis of the weight's output channels."""
        return 0

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The float layer on the quantized input, with the quantized weights.

        Args:
            x: The input.
            *args, **kwargs: What else the float layer takes.
        """
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        return self._operate(x, self._ready_weight(), *args, **kwargs)

    @contextmanager
    def quantize_weight_once(self) -> Iterator[None]:
        """Within the block the weights must not change; they are quantized once for all calls."""
        if self._shares_weight:
            kept = self._kept_weight()
            self._shared_weight = self._fake_quantized_weight() if kept is None else kept
        try:
            yield
        finally:
            self._shared_weight = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_kept': _NOTHING_KEPT, '_planned': _NOTHING_PLANNED}

    def _operate(self, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the float layer computes from an input and a weight."""
        raise NotImplementedError

    def _fake_quantized_weight(self) -> Tensor:
        return self.weight_quantizer(self.weight)

    def _ready_weight(self) -> Tensor:
        """The weight to compute with: shared, kept, quantized now, or in float."""
        if self._shared_weight is not None:
            return self._shared_weight
        if self.weight_quantizer is None:
            return self.weight
        kept = self._kept_weight()
        return self._fake_quantized_weight() if kept is None else kept

    def _kept_weight(self) -> Tensor | None:
        """What evaluation keeps: the quantized weights; None where nothing is kept."""
        if self.training or torch.is_grad_enabled() or is_compiling():
            return None
        quantizer = self.weight_quantizer
        if not isinstance(quantizer, Quantizer) or self.weight.device.type != 'cpu':
            return None
        sources = (self.weight, *quantizer.parameters())
        kernel, kept, _ = self._kept
        # The contents are compared: a write through `.data`, as EMA does, leaves no other trace.
        if kernel != quantizer.kernel or not _same(kept, sources):
            copies = tuple(source.clone() for source in sources)
            self._kept = quantizer.kernel, copies, self._fake_quantized_weight()
        return self._kept[2]

    @property
    def _shares_weight(self) -> bool:
        # What stands in for a quantizer is called for every level, as it may look at each call.
        return isinstance(self.weight_quantizer, Quantizer) and not is_exporting()

    def _set_quantizers(self, weight: QuantizerCfg, inputs: QuantizerCfg) -> None:
        self.weight_quantizer: nn.Module | None = build_quantizer(
            weight, num_channels=self.num_outputs)
        self.input_quantizer: nn.Module | None = build_quantizer(inputs)
        self._shared_weight: Tensor | None = None
        self._kept = _NOTHING_KEPT
        self._planned = _NOTHING_PLANNED


class FusedLayer(QuantLayer):
    """A quantized layer that saves no copies for the backward pass, see :class:`ConvPlan`.

    Where it can't be fused, or another module stands in for a quantizer (as in a calibration), the
    quantizers run and then the layer, as those of :class:`QuantLayer` do.
    """

    #: Whether its quantizers' kernels can run in its own forward and backward pass
    _can_fuse = True

    def forward(self, x: Tensor) -> Tensor:
        inputs, weights = self.input_quantizer or _FLOAT, self.weight_quantizer or _FLOAT
        if isinstance(inputs, MultiLevelQuantizer):
            inputs = inputs.current
        if not (isinstance(inputs, _KNOWN) and isinstance(weights, _KNOWN) and self._can_fuse):
            return super().forward(x)
        if is_exporting():
            return self._forward_exported(x)
        weight = self._shared_weight if self._shared_weight is not None else self._kept_weight()
        if weight is None:
            weight = self.weight
        else:
            weights = _FLOAT
        inputs.watch(x)
        plan = self._plan(inputs.kernel, weights.kernel)
        return plan(x, weight, self.bias, inputs.parameters_for(x), weights.parameters_for(weight))

    def _geometry_arguments(self) -> tuple:
        """What the geometry is made of; compared in every call."""
        return ()

    def _geometry(self) -> Geometry:
        raise NotImplementedError

    def _forward_exported(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def _operate(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._geometry().forward(x, weight, self.bias)

    def _plan(self, input_kernel: FakeQuantizeKernel,
              weight_kernel: FakeQuantizeKernel) -> ConvPlan:
        """That of the call before, if it is made of the same things."""
        arguments = self._geometry_arguments()
        before, plan = self._planned
        # The same kernels, not equal ones: one may be compiled.
        if (before != arguments or plan.input_kernel is not input_kernel
                or plan.weight_kernel is not weight_kernel):
            plan = ConvPlan(self._geometry(), input_kernel, weight_kernel)
            if not is_compiling():
                self._planned = arguments, plan
        return plan
