from .affine_search import least_error_step_size_and_offset
from .dorefa import DoReFaActivationKernel, DoReFaWeightKernel
from .fake_quantize import fake_quantize
from .geometry import AdaptiveConvGeometry, ConvGeometry, Geometry, LinearGeometry
from .grid import (IntegerGrid, narrow_grid, symmetric_weight_grid, twos_complement_grid,
                   unsigned_grid)
from .interval_search import least_error_interval
from .kernels import FLOAT, FakeQuantizeKernel
from .liq import LIQActivationKernel, LIQWeightKernel
from .lsq import LSQActivationKernel, LSQPlusActivationKernel, LSQWeightKernel
from .one_pass import compile_kernels, kernels_are_compiled
from .packing import pack, packed_size, unpack
from .pact import PACTActivationKernel
from .quant_conv import ConvPlan, quant_conv2d
from .ranges import check_bit_width
from .rounding import round_half_even, round_ste
from .stored import StoredWeightKernel

__all__ = [
    'FLOAT', 'AdaptiveConvGeometry', 'ConvGeometry', 'ConvPlan', 'DoReFaActivationKernel',
    'DoReFaWeightKernel', 'FakeQuantizeKernel', 'Geometry', 'IntegerGrid', 'LIQActivationKernel',
    'LIQWeightKernel', 'LSQActivationKernel', 'LSQPlusActivationKernel', 'LSQWeightKernel',
    'LinearGeometry', 'PACTActivationKernel', 'StoredWeightKernel', 'check_bit_width',
    'compile_kernels', 'fake_quantize', 'kernels_are_compiled', 'least_error_interval',
    'least_error_step_size_and_offset', 'narrow_grid', 'pack', 'packed_size', 'quant_conv2d',
    'round_half_even', 'round_ste', 'symmetric_weight_grid', 'twos_complement_grid', 'unpack',
    'unsigned_grid'
]
