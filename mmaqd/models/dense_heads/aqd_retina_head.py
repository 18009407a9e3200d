"""Multi-level RetinaHead."""
from mmdet.models.dense_heads import RetinaHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDRetinaHead(MultiLevelHeadMixin, RetinaHead):
    """Multi-level :class:`mmdet.models.RetinaHead`: its arguments and ``norm_eval``."""
