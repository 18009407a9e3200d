from .base import (CheckpointMismatchError, IntervalQuantizer, UninitializedIntervalError,
                   calibrating)
from .builder import build_quantizer
from .calibration import calibrate
from .liq import LIQActivationQuantizer, LIQWeightQuantizer

__all__ = [
    'CheckpointMismatchError', 'IntervalQuantizer', 'LIQActivationQuantizer', 'LIQWeightQuantizer',
    'UninitializedIntervalError', 'build_quantizer', 'calibrate', 'calibrating'
]
