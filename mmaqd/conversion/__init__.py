from mmaqd.models.quantization_table import LayerQuantization, format_table, quantization_table

from .policy import QuantizationPolicy
from .prepare import prepare
from .quantized_detector import QuantizedDetector
from .streams import add_streams

__all__ = [
    'LayerQuantization', 'QuantizationPolicy', 'QuantizedDetector', 'add_streams', 'format_table',
    'prepare', 'quantization_table'
]
