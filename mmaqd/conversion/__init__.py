from mmaqd.models.quantization_table import LayerQuantization, format_table, quantization_table

from .policy import QuantizationPolicy
from .prepare import prepare
from .quantized_detector import QuantizedDetector

__all__ = [
    'LayerQuantization', 'QuantizationPolicy', 'QuantizedDetector', 'format_table', 'prepare',
    'quantization_table'
]
