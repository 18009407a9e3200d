"""Multi-level ATSSHead."""
from mmdet.models.dense_heads import ATSSHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDATSSHead(MultiLevelHeadMixin, ATSSHead):
    """Multi-level :class:`mmdet.models.ATSSHead`: its arguments and ``norm_eval``."""
