"""The quantizer of a stream: feature maps that integers keep in 8 bits."""
from __future__ import annotations

import torch
from torch import Tensor

from mmaqd.functional import LSQActivationKernel, check_bit_width, fake_quantize
from mmaqd.functional.blocks import is_exporting
from mmaqd.functional.kernels import compute_dtype

from .lsq import StepSizeQuantizer


class StreamQuantizer(StepSizeQuantizer):
    """LSQ of both operands and the sum of additions, or of a map that several convs read.

    They share one step size. Integers of one unit are added without a multiplication, so a
    network that is trained with streams loses nothing when it is converted to integers. A number
    becomes s q with q in -2^(b-1)..2^(b-1) - 1, or in 0..2^b - 1 where none is negative. s is
    learned; it starts as the least one that clips nothing which was seen while calibrating.

    Args:
        bit_width: b, 4 to 8; the engines run 8.

    Attributes:
        step_size: s, the learned parameter, ().

    Raises:
        ValueError: ``bit_width`` is out of its range.

    Example:
        >>> stream = StreamQuantizer(8)
        >>> stream.observe(torch.tensor([-64.0, 63.5]))
        >>> stream.initialize()
        >>> stream(torch.tensor([-70.0, 0.3, 70.0]))
        tensor([-64.0000,   0.5000,  63.5000], grad_fn=<_FakeQuantizeBackward>)
        >>> stream(torch.tensor([0.3, 70.0, 200.0]), nonnegative=True)
        tensor([  0.5000,  70.0000, 127.5000], grad_fn=<_FakeQuantizeBackward>)
    """

    starts = ('max', )

    def __init__(self, bit_width: int) -> None:
        check_bit_width(bit_width, 4, type(self).__name__)
        super().__init__(LSQActivationKernel(bit_width, signed=True), 'max', dict(step_size=1.0))
        self._unsigned = LSQActivationKernel(bit_width)

    def forward(self, x: Tensor, nonnegative: bool = False) -> Tensor:
        """Fake-quantize ``x``, of any shape, in the unsigned codes if it is never negative."""
        kernel = self._unsigned if nonnegative else self.kernel
        if is_exporting():
            return self._forward_exported(x, kernel)
        return fake_quantize(x, kernel, *self.parameters_for(x))

    def _forward_exported(self, x: Tensor, kernel: LSQActivationKernel) -> Tensor:
        from mmaqd.functional.operators import kernel_to_text  # torch 2.1 has no custom_op
        return torch.ops.mmaqd.fake_quantize(x, list(self.learned_parameters),
                                             kernel_to_text(kernel))

    def take_samples(self, x: Tensor, nonnegative: bool = False) -> None:
        kernel = self._unsigned if nonnegative else self.kernel
        low, high = torch.aminmax(compute_dtype(x))
        needed = high / kernel.qmax
        if kernel.signed:
            needed = torch.maximum(needed, low / kernel.qmin)
        self._samples.add(needed.reshape(1, 1))

    def _initialize_from(self, samples: Tensor) -> None:
        largest = samples.max()
        self.step_size.copy_(torch.where(largest > 0, largest, torch.ones_like(largest)))

    @property
    def _source(self) -> str:
        return 'its input holds'
