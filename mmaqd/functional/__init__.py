from .composed import composed_liq_activation, composed_liq_weight
from .fake_quantize import fake_quantize
from .interval_search import least_error_interval
from .kernels import FakeQuantizeKernel
from .liq import LIQActivationKernel, LIQWeightKernel
from .quant_conv import ConvGeometry, QuantizedWeight, quant_conv2d
from .ranges import check_bit_width, unsigned_qmax, weight_qmax
from .rounding import round_half_even, round_ste

__all__ = [
    'ConvGeometry', 'FakeQuantizeKernel', 'LIQActivationKernel', 'LIQWeightKernel',
    'QuantizedWeight', 'check_bit_width', 'composed_liq_activation', 'composed_liq_weight',
    'fake_quantize', 'least_error_interval', 'quant_conv2d', 'round_half_even', 'round_ste',
    'unsigned_qmax', 'weight_qmax'
]
