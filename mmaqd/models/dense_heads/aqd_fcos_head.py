"""Multi-level FCOSHead."""
from mmdet.models.dense_heads import FCOSHead

from mmaqd.registry import MODELS

from .multi_level_head import MultiLevelHeadMixin


@MODELS.register_module()
class AQDFCOSHead(MultiLevelHeadMixin, FCOSHead):
    """Multi-level :class:`mmdet.models.FCOSHead`: its arguments and ``norm_eval``."""
