from .base import (ActivationQuantizer, CheckpointMismatchError, Quantizer,
                   UninitializedIntervalError, WeightQuantizer, calibrating)
from .builder import build_quantizer
from .calibration import calibrate, modes_kept
from .dorefa import DoReFaActivationQuantizer, DoReFaWeightQuantizer
from .liq import LIQActivationQuantizer, LIQWeightQuantizer
from .lsq import (LSQActivationQuantizer, LSQPlusActivationQuantizer, LSQPlusWeightQuantizer,
                  LSQWeightQuantizer)
from .pact import PACTActivationQuantizer
from .state import state_interval

__all__ = [
    'ActivationQuantizer', 'CheckpointMismatchError', 'DoReFaActivationQuantizer',
    'DoReFaWeightQuantizer', 'LIQActivationQuantizer', 'LIQWeightQuantizer',
    'LSQActivationQuantizer', 'LSQPlusActivationQuantizer', 'LSQPlusWeightQuantizer',
    'LSQWeightQuantizer', 'PACTActivationQuantizer', 'Quantizer', 'UninitializedIntervalError',
    'WeightQuantizer', 'build_quantizer', 'calibrate', 'calibrating', 'modes_kept', 'state_interval'
]
