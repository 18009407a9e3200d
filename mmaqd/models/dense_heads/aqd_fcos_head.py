"""Multi-level FCOSHead."""
from mmdet.models.dense_heads import FCOSHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDFCOSHead(MultiLevelHeadMixin, FCOSHead):
    """:class:`mmdet.models.FCOSHead` whose layers know the pyramid level. Same arguments."""

    per_level_attributes = ('scales', 'strides')
