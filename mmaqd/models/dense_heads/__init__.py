from .aqd_atss_head import AQDATSSHead
from .aqd_fcos_head import AQDFCOSHead
from .aqd_retina_head import AQDRetinaHead
from .multi_level_head import MultiLevelHeadMixin

__all__ = ['AQDATSSHead', 'AQDFCOSHead', 'AQDRetinaHead', 'MultiLevelHeadMixin']
