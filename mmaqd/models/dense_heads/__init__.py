from .aqd_atss_head import AQDATSSHead
from .aqd_fcos_head import AQDFCOSHead
from .aqd_retina_head import AQDRetinaHead
from .multi_level_head import MultiLevelHead, MultiLevelHeadMixin, check_levels_are_named

__all__ = [
    'AQDATSSHead', 'AQDFCOSHead', 'AQDRetinaHead', 'MultiLevelHead', 'MultiLevelHeadMixin',
    'check_levels_are_named'
]
