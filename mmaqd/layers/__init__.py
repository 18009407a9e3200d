from .multi_level import MultiLevelModule, NoLevelError
from .multi_level_bn import MultiLevelBN, MultiLevelSyncBN
from .multi_level_quantizer import MultiLevelQuantizer
from .quant_conv import QuantConv2d

__all__ = [
    'MultiLevelBN', 'MultiLevelModule', 'MultiLevelQuantizer', 'MultiLevelSyncBN', 'NoLevelError',
    'QuantConv2d'
]
