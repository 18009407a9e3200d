from .backbones import FoldInputStd
from .dense_heads import AQDATSSHead, AQDFCOSHead, AQDRetinaHead, MultiLevelHeadMixin

__all__ = ['AQDATSSHead', 'AQDFCOSHead', 'AQDRetinaHead', 'FoldInputStd', 'MultiLevelHeadMixin']
