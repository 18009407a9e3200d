"""Convolution with quantizers for its weights and its input."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence, Tuple, Union

import torch
import torch.nn as nn
from torch import Tensor

from mmaqd.functional import FLOAT, ConvGeometry, ConvPlan, FakeQuantizeKernel
from mmaqd.functional.blocks import is_compiling, is_exporting
from mmaqd.quantizers import build_quantizer
from mmaqd.registry import MODELS

QuantizerCfg = Union[dict, nn.Module, None]

# The kernel, copies of the weights and the kernel's parameters, and what they were quantized to.
_Kept = Tuple[Optional[FakeQuantizeKernel], Tuple[Tensor, ...], Optional[Tensor]]
_NOTHING_KEPT: _Kept = (None, (), None)

# Arguments of the geometry, and the plan.
_NOTHING_PLANNED: Tuple[Optional[tuple], Optional[ConvPlan]] = (None, None)


class _Float:
    """What a conv asks a quantizer for, where it has none."""

    kernel = FLOAT
    kernel_parameters = ()
    calibrating = False

    def begin_training_step(self) -> None:
        pass

    def watch(self, x: Tensor) -> None:
        pass


_FLOAT = _Float()


def _same(kept: Sequence[Tensor], sources: Sequence[Tensor]) -> bool:
    return len(kept) == len(sources) and all(a.dtype == b.dtype and torch.equal(a, b)
                                             for a, b in zip(kept, sources))


@MODELS.register_module()
class QuantConv2d(nn.Conv2d):
    """A :class:`torch.nn.Conv2d` that quantizes its weights and its input.

    ``weight`` and ``bias`` keep their names, so that float checkpoints load. The bias is not
    quantized.

    In evaluation without gradients on a CPU the quantized weights are kept, together with a copy of
    what they were made from, until that changes. (On a GPU quantizing again costs less than
    comparing.)

    Args:
        *args, **kwargs: As for :class:`torch.nn.Conv2d`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (N, C_in, H, W), output (N, C_out, H_out, W_out).
    """

    def __init__(self,
                 *args: Any,
                 weight_quantizer: QuantizerCfg = None,
                 input_quantizer: QuantizerCfg = None,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_quantizers(weight_quantizer, input_quantizer)

    @classmethod
    def from_conv(cls,
                  conv: nn.Conv2d,
                  weight_quantizer: QuantizerCfg = None,
                  input_quantizer: QuantizerCfg = None) -> QuantConv2d:
        """The quantized twin of ``conv``, which shares its parameters."""
        quant_conv = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device='meta',
            weight_quantizer=weight_quantizer,
            input_quantizer=input_quantizer)
        quant_conv.weight = conv.weight
        quant_conv.bias = conv.bias
        quant_conv.train(conv.training)
        return quant_conv.to(conv.weight.device)  # for the quantizers

    def forward(self, x: Tensor) -> Tensor:
        weights, inputs = self.weight_quantizer or _FLOAT, self.input_quantizer or _FLOAT
        if not self._fuses(weights, inputs):
            return self._forward_composed(x)
        if is_exporting():
            return self._forward_exported(x)
        weight = self._shared_weight if self._shared_weight is not None else self._kept_weight()
        if weight is None:
            weight = self.weight
        else:
            weights = _FLOAT
        weights.begin_training_step()
        inputs.begin_training_step()
        inputs.watch(x)
        plan = self._plan(inputs.kernel, weights.kernel)
        return plan(x, weight, self.bias, inputs.kernel_parameters, weights.kernel_parameters)

    @contextmanager
    def quantize_weight_once(self) -> Iterator[None]:
        """Within the block the weights must not change; they are quantized once for all calls."""
        if self._shares_weight:
            kept = self._kept_weight()
            self._shared_weight = self.weight_quantizer(self.weight) if kept is None else kept
        try:
            yield
        finally:
            self._shared_weight = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_kept': _NOTHING_KEPT, '_planned': _NOTHING_PLANNED}

    def _kept_weight(self) -> Optional[Tensor]:
        """What evaluation keeps: the quantized weights; None where nothing is kept."""
        if self.training or torch.is_grad_enabled() or is_compiling():
            return None
        if self.weight_quantizer is None or self.weight.device.type != 'cpu':
            return None
        sources = (self.weight, *self.weight_quantizer.parameters())
        kernel, kept, _ = self._kept
        # The contents are compared: a write through `.data`, as EMA does, leaves no other trace.
        if kernel != self.weight_quantizer.kernel or not _same(kept, sources):
            copies = tuple(source.clone() for source in sources)
            self._kept = self.weight_quantizer.kernel, copies, self.weight_quantizer(self.weight)
        return self._kept[2]

    def _forward_exported(self, x: Tensor) -> Tensor:
        """One operator. Whether the intervals have values is asked where its graph is used."""
        from mmaqd.functional.quant_conv_op import kernel_to_text  # torch 2.1 has no custom_op
        inputs, quantizer = self.input_quantizer, self.weight_quantizer
        return torch.ops.mmaqd.quant_conv2d(x, self.weight, self.bias,
                                            list(inputs.learned_parameters) if inputs else [],
                                            list(quantizer.learned_parameters) if quantizer else [],
                                            kernel_to_text(inputs and inputs.kernel),
                                            kernel_to_text(quantizer and quantizer.kernel),
                                            self.stride, self.padding, self.dilation, self.groups)

    def _forward_composed(self, x: Tensor) -> Tensor:
        """Quantizers, then conv: while calibrating, for padding that is not zeros, and where a
        module without a kernel stands in for a quantizer."""
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        weight = self.weight
        if self.weight_quantizer is not None:
            weight = self.weight_quantizer(weight)
        return self._conv_forward(x, weight, self.bias)

    @property
    def _shares_weight(self) -> bool:
        quantizer = self.weight_quantizer
        return (quantizer is not None and not is_exporting()
                and self._fuses(quantizer, self.input_quantizer or _FLOAT))

    def _fuses(self, *quantizers: Any) -> bool:
        """Whether the conv quantizes itself, by the kernels of its quantizers."""
        if self.padding_mode != 'zeros' or isinstance(self.padding, str):
            return False
        # A module that is none of ours has no kernel, and is called.
        return not any([getattr(quantizer, 'calibrating', True) for quantizer in quantizers])

    def _plan(self, input_kernel: FakeQuantizeKernel,
              weight_kernel: FakeQuantizeKernel) -> ConvPlan:
        """That of the call before, if it is made of the same things."""
        arguments = (self.stride, self.padding, self.dilation, self.groups)
        before, plan = self._planned
        # The same kernels, not equal ones: one may be compiled.
        if (before != arguments or plan.input_kernel is not input_kernel
                or plan.weight_kernel is not weight_kernel):
            plan = ConvPlan(ConvGeometry(*arguments), input_kernel, weight_kernel)
            if not is_compiling():
                self._planned = arguments, plan
        return plan

    def _set_quantizers(self, weight: QuantizerCfg, inputs: QuantizerCfg) -> None:
        self.weight_quantizer: Optional[nn.Module] = build_quantizer(
            weight, num_channels=self.out_channels)
        self.input_quantizer: Optional[nn.Module] = build_quantizer(inputs)
        self._shared_weight: Optional[Tensor] = None
        self._kept = _NOTHING_KEPT
        self._planned = _NOTHING_PLANNED
