"""From any config of MMDetection to one of the low-bit detector, without a line by hand."""
from .images import random_batch
from .plan import METHODS
from .quantize import QuantizedConfig, as_in_training, quantize_config
from .upstream import build_without_download, has_masks, num_classes

__all__ = [
    'METHODS', 'QuantizedConfig', 'as_in_training', 'build_without_download', 'has_masks',
    'num_classes', 'quantize_config', 'random_batch'
]
