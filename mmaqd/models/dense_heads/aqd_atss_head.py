"""Multi-level ATSSHead."""
from mmdet.models.dense_heads import ATSSHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDATSSHead(MultiLevelHeadMixin, ATSSHead):
    """:class:`mmdet.models.ATSSHead` whose layers know the pyramid level. Same arguments."""

    per_level_attributes = ('scales', )
