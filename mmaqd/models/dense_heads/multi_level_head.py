"""The mechanism by which a dense head that is shared over the pyramid becomes multi-level."""
from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Sequence

from mmdet.models.utils import multi_apply
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.layers import MultiLevelModule, QuantConv2d


class MultiLevelHeadMixin:
    """Tells the layers of a shared dense head which pyramid level they are working on.

    Put it in front of an upstream head whose ``forward`` applies ``forward_single`` to each
    feature map. :attr:`per_level_attributes` names what ``forward_single`` takes besides the
    feature map::

        @MODELS.register_module()
        class AQDGFLHead(MultiLevelHeadMixin, GFLHead):
            per_level_attributes = ('scales', )

    With ``norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5)`` the towers normalize each level
    by its own statistics. The weights of the shared convs are quantized once a forward, not once a
    level. With another ``norm_cfg`` the head computes what the upstream head does.

    Args:
        *args: Those of the upstream head.
        norm_eval: Freeze the running statistics of BN and its variants while training, as the
            argument of this name does in MMDetection's backbones. Weight and bias go on learning.
            Weights that are quantized after a normalization do not fit statistics frozen without
            it; give their quantizer ``normalize=False``.
        **kwargs: Those of the upstream head.
    """

    #: Names of the attributes of the head with one item per level, in ``forward_single``'s order.
    per_level_attributes: tuple[str, ...] = ()

    def __init__(self, *args: Any, norm_eval: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> nn.Module:
        """Set training mode, where BN stays in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Apply ``forward_single`` to every pyramid level.

        Args:
            feats: One feature map per level, each (N, C, H_i, W_i).

        Returns:
            What the upstream head returns: one list over the levels for each kind of prediction.

        Raises:
            ValueError: A layer has another number of levels than ``feats``.
        """
        layers = self._multi_level_layers(len(feats))
        extras = [getattr(self, name) for name in self.per_level_attributes]
        with ExitStack() as stack:
            for module in self.modules():
                if isinstance(module, QuantConv2d):
                    stack.enter_context(module.quantize_weight_once())
            return multi_apply(
                self._forward_level, range(len(feats)), feats, *extras, layers=layers)

    def _forward_level(self, level: int, x: Tensor, *extras: Any,
                       layers: Sequence[MultiLevelModule]) -> tuple[Tensor, ...]:
        for layer in layers:
            layer.level = level
        try:
            return self.forward_single(x, *extras)
        finally:
            for layer in layers:
                layer.level = None

    def _multi_level_layers(self, num_feats: int) -> list[MultiLevelModule]:
        layers = []
        for name, module in self.named_modules():
            if not isinstance(module, MultiLevelModule):
                continue
            if module.num_levels != num_feats:
                raise ValueError(
                    f'{type(self).__name__}.{name} has num_levels={module.num_levels}, but the '
                    f'head got {num_feats} feature maps. Set num_levels of its '
                    f'{type(module).__name__} to num_outs of the neck.')
            layers.append(module)
        return layers
