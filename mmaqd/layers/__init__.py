from .multi_level_bn import MultiLevelBN, MultiLevelSyncBN
from .quant_conv import QuantConv2d

__all__ = ['MultiLevelBN', 'MultiLevelSyncBN', 'QuantConv2d']
