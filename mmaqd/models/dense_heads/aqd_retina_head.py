"""Multi-level RetinaHead."""
from mmdet.models.dense_heads import RetinaHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDRetinaHead(MultiLevelHeadMixin, RetinaHead):
    """:class:`mmdet.models.RetinaHead` whose layers know the pyramid level. Same arguments."""
