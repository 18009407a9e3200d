"""Multi-head attention whose projections are quantized layers."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from mmaqd.functional import LinearGeometry
from mmaqd.functional.attention import attend, attention_mask

from .quant_layer import FusedLayer, QuantizerCfg

PROJECTIONS = ('q_proj', 'k_proj', 'v_proj')
_GEOMETRY = LinearGeometry()


class QuantProjection(FusedLayer):
    """A quantized linear layer whose weight is a part of its attention's parameters.

    Args:
        attention: The attention.
        position: 0, 1 or 2 for the projection of the queries, the keys, the values.
        weight_quantizer: Config or quantizer for the weights; None leaves them in float.
        input_quantizer: Config or quantizer for the input; None leaves it as it is.

    Shape:
        input (..., in_features), output (..., embed_dim).
    """

    #: The weight is no parameter of its own, but is to be listed all the same.
    lends_weight = True

    def __init__(self,
                 attention: nn.MultiheadAttention,
                 position: int,
                 weight_quantizer: QuantizerCfg = None,
                 input_quantizer: QuantizerCfg = None) -> None:
        nn.Module.__init__(self)
        # In a tuple, so that the attention is no submodule of its own submodule.
        self._owner = (attention, )
        self._position = position
        self._set_quantizers(weight_quantizer, input_quantizer)
        self.train(attention.training)
        self.to(self.weight.device)

    @property
    def weight(self) -> Tensor:
        """(embed_dim, in_features), a view."""
        attention, = self._owner
        if attention.in_proj_weight is None:  # keys or values of another size
            return getattr(attention, f'{PROJECTIONS[self._position]}_weight')
        return self._part(attention.in_proj_weight)

    @property
    def bias(self) -> Tensor | None:
        """(embed_dim,), a view, or None."""
        packed = self._owner[0].in_proj_bias
        return None if packed is None else self._part(packed)

    def _part(self, packed: Tensor) -> Tensor:
        size = packed.shape[0] // len(PROJECTIONS)
        return packed[self._position * size:(self._position + 1) * size]

    def _geometry(self) -> LinearGeometry:
        return _GEOMETRY

    def extra_repr(self) -> str:
        return f'in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}'


class QuantMultiheadAttention(nn.MultiheadAttention):
    """A :class:`torch.nn.MultiheadAttention` whose four projections are quantized.

    The parameters keep their names and are the same objects: ``in_proj_weight``, ... The layers
    ``q_proj``, ``k_proj`` and ``v_proj`` hold the quantizers and work with views of it.
    ``out_proj`` is called, where torch only reads its weight, and so can be quantized as any linear
    layer. The two products of the attention itself stay in float.

    Until :meth:`quantize_projection` says otherwise the projections are in float.

    Args:
        *args, **kwargs: As for :class:`torch.nn.MultiheadAttention`.

    Shape:
        As for :class:`torch.nn.MultiheadAttention`, of which it returns what that returns.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._add_projections()

    @classmethod
    def from_float(cls, attention: nn.MultiheadAttention) -> QuantMultiheadAttention:
        """The twin of ``attention``, which shares its parameters and its ``out_proj``."""
        twin = cls.__new__(cls)
        twin.__dict__.update({
            name: value.copy() if isinstance(value, dict) else value
            for name, value in vars(attention).items()
        })
        twin._add_projections()
        return twin

    def quantize_projection(self,
                            name: str,
                            weight_quantizer: QuantizerCfg = None,
                            input_quantizer: QuantizerCfg = None) -> QuantProjection:
        """Give one of ``q_proj``, ``k_proj``, ``v_proj`` its quantizers; returns the projection."""
        projection = QuantProjection(self, PROJECTIONS.index(name), weight_quantizer,
                                     input_quantizer)
        self.add_module(name, projection)
        return projection

    def forward(self,
                query: Tensor,
                key: Tensor,
                value: Tensor,
                key_padding_mask: Tensor | None = None,
                need_weights: bool = True,
                attn_mask: Tensor | None = None,
                average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """As for :class:`torch.nn.MultiheadAttention`.

        Raises:
            ValueError: ``is_causal`` without ``attn_mask``, or a mask of a wrong shape.
        """
        if is_causal and attn_mask is None:
            raise ValueError('is_causal says that attn_mask is causal: give attn_mask, too.')
        if query.dim() == 2:
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask[None]
            out, weights = self.forward(*self._batches_of_one(query, key, value), key_padding_mask,
                                        need_weights, attn_mask, average_attn_weights)
            return out.squeeze(self._batch_axis), None if weights is None else weights[0]
        mask = attention_mask(attn_mask, key_padding_mask, self.num_heads, query.dtype)
        q, k, v = self._projected(query, key, value)
        k, v, mask = self._extended(k, v, mask)
        out, weights = attend(q, k, v, self.num_heads, mask, self.dropout if self.training else 0.0,
                              need_weights)
        out = self.out_proj(out)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        return out if self.batch_first else out.transpose(0, 1), weights

    @property
    def packed_parts(self) -> dict[str, list[str]]:
        """Names of the weights that make up a parameter, one below the other, by its name."""
        if self.in_proj_weight is None:
            return {f'{name}_weight': [f'{name}.weight'] for name in PROJECTIONS}
        return dict(in_proj_weight=[f'{name}.weight' for name in PROJECTIONS])

    def is_projected(self, parameter: str) -> bool:
        """Whether a parameter of its own is one whose parts are the weights of projections."""
        return parameter.endswith('proj_weight')

    @property
    def _batch_axis(self) -> int:
        return 0 if self.batch_first else 1

    def _batches_of_one(self, *tensors: Tensor) -> list[Tensor]:
        return [each.unsqueeze(self._batch_axis) for each in tensors]

    def _projected(self, *tensors: Tensor) -> list[Tensor]:
        """Queries, keys and values, each (B, L, E)."""
        if not self.batch_first:
            tensors = tuple(each.transpose(0, 1) for each in tensors)
        return [getattr(self, name)(each) for name, each in zip(PROJECTIONS, tensors)]

    def _extended(self, k: Tensor, v: Tensor,
                  mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with the learned and the zero one behind, which no mask hides."""
        length = k.shape[1]
        if self.bias_k is not None:
            k, v = (torch.cat([each, bias.to(each.dtype).expand(len(each), -1, -1)], dim=1)
                    for each, bias in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (nn.functional.pad(each, (0, 0, 0, 1)) for each in (k, v))
        if mask is not None:
            mask = nn.functional.pad(mask, (0, k.shape[1] - length))
        return k, v, mask

    def _add_projections(self) -> None:
        for name in PROJECTIONS:
            self.quantize_projection(name)
