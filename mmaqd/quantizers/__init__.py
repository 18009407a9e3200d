from .base import CalibrationError, CheckpointMismatchError, Quantizer, UninitializedIntervalError
from .batch_statistics import modes_kept
from .builder import build_quantizer
from .calibration import calibrate, calibrating
from .dorefa import DoReFaActivationQuantizer, DoReFaWeightQuantizer
from .liq import LIQActivationQuantizer, LIQWeightQuantizer
from .lsq import (LSQActivationQuantizer, LSQPlusActivationQuantizer, LSQPlusWeightQuantizer,
                  LSQWeightQuantizer)
from .pact import PACTActivationQuantizer
from .roles import ActivationQuantizer, WeightQuantizer
from .state import state_interval

__all__ = [
    'ActivationQuantizer', 'CalibrationError', 'CheckpointMismatchError',
    'DoReFaActivationQuantizer', 'DoReFaWeightQuantizer', 'LIQActivationQuantizer',
    'LIQWeightQuantizer', 'LSQActivationQuantizer', 'LSQPlusActivationQuantizer',
    'LSQPlusWeightQuantizer', 'LSQWeightQuantizer', 'PACTActivationQuantizer', 'Quantizer',
    'UninitializedIntervalError', 'WeightQuantizer', 'build_quantizer', 'calibrate', 'calibrating',
    'modes_kept', 'state_interval'
]
