"""Parameterized clipping activation (PACT), arXiv:1805.06085."""
from __future__ import annotations

from torch import Tensor

from mmaqd.functional import PACTActivationKernel, check_bit_width
from mmaqd.registry import QUANTIZERS

from .roles import ActivationQuantizer


@QUANTIZERS.register_module()
class PACTActivationQuantizer(ActivationQuantizer):
    """PACT of a non-negative tensor: x is clipped to [0, alpha] and rounded to alpha q/n.

    Rounding gives alpha no gradient, only clipped inputs do. What keeps alpha small is the L2
    penalty of the paper, that is weight decay, which the optimizer applies to it like to any other
    parameter. The paper quantizes the weights by DoReFa: use :class:`DoReFaWeightQuantizer`.

    Args:
        bit_width: b, 2 to 8; n = 2^b - 1.
        start: ``'constant'`` as in the paper; or from data by ``'least_error'`` or ``'max'``, see
            :class:`Quantizer`, where the training is too short to bring alpha down.
        start_value: The alpha to start from with ``start='constant'``.

    Attributes:
        alpha: The learned parameter, ().

    Raises:
        ValueError: An argument is out of its range; a negative input while calibrating.

    Example:
        >>> import torch
        >>> quantizer = PACTActivationQuantizer(bit_width=2, start_value=1.5)
        >>> quantizer.quantize(torch.tensor([0.1, 0.6, 2.0]))
        tensor([0, 1, 3], dtype=torch.uint8)
    """

    def __init__(self, bit_width: int, start: str = 'constant', start_value: float = 10.0) -> None:
        check_bit_width(bit_width, 2, type(self).__name__)
        super().__init__(PACTActivationKernel(bit_width), start, dict(alpha=start_value))

    @property
    def interval(self) -> Tensor:
        """alpha without its gradient."""
        return self.alpha.detach()
