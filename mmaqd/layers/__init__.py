from .multi_level import MultiLevelModule, NoLevelError
from .multi_level_bn import MultiLevelBN, MultiLevelSyncBN
from .multi_level_quantizer import MultiLevelQuantizer
from .quant_attention import PROJECTIONS, QuantMultiheadAttention, QuantProjection
from .quant_conv import QuantConv2d, QuantConv2dAdaptivePadding, QuantConvTranspose2d
from .quant_deform_conv import (QuantDeformConv2d, QuantDeformConv2dPack,
                                QuantModulatedDeformConv2d, QuantModulatedDeformConv2dPack)
from .quant_layer import FusedLayer, QuantLayer
from .quant_linear import QuantLinear

__all__ = [
    'PROJECTIONS', 'FusedLayer', 'MultiLevelBN', 'MultiLevelModule', 'MultiLevelQuantizer',
    'MultiLevelSyncBN', 'NoLevelError', 'QuantConv2d', 'QuantConv2dAdaptivePadding',
    'QuantConvTranspose2d', 'QuantDeformConv2d', 'QuantDeformConv2dPack', 'QuantLayer',
    'QuantLinear', 'QuantModulatedDeformConv2d', 'QuantModulatedDeformConv2dPack',
    'QuantMultiheadAttention', 'QuantProjection'
]
