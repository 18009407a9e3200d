"""Linear layer with quantizers for its weights and its input."""
from __future__ import annotations

import torch.nn as nn

from mmaqd.functional import LinearGeometry
from mmaqd.registry import MODELS

from .quant_layer import FusedLayer

_GEOMETRY = LinearGeometry()


@MODELS.register_module()
class QuantLinear(FusedLayer, nn.Linear):
    """A :class:`torch.nn.Linear` that quantizes its weights and its input.

    Args:
        *args, **kwargs: As for :class:`torch.nn.Linear`.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (..., in_features), output (..., out_features), with any axes in front.
    """

    def _geometry(self) -> LinearGeometry:
        return _GEOMETRY
