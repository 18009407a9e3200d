from .policy import QuantizationPolicy
from .prepare import prepare
from .quantized_detector import QuantizedDetector
from .report import LayerQuantization, format_table, quantization_table

__all__ = [
    'LayerQuantization', 'QuantizationPolicy', 'QuantizedDetector', 'format_table', 'prepare',
    'quantization_table'
]
