from .base import Quantizer
from .batch_statistics import modes_kept
from .builder import build_quantizer
from .calibration import calibrate, calibrating
from .dorefa import DoReFaActivationQuantizer, DoReFaWeightQuantizer
from .errors import CalibrationError, CheckpointMismatchError, UninitializedIntervalError
from .liq import LIQActivationQuantizer, LIQWeightQuantizer
from .lsq import (LSQActivationQuantizer, LSQPlusActivationQuantizer, LSQPlusWeightQuantizer,
                  LSQWeightQuantizer)
from .pact import PACTActivationQuantizer
from .roles import ActivationQuantizer, WeightQuantizer
from .state import state_interval
from .stored import STORED_SCALE, PackedWeightsError
from .stream import StreamQuantizer

__all__ = [
    'STORED_SCALE', 'ActivationQuantizer', 'CalibrationError', 'CheckpointMismatchError',
    'DoReFaActivationQuantizer', 'DoReFaWeightQuantizer', 'LIQActivationQuantizer',
    'LIQWeightQuantizer', 'LSQActivationQuantizer', 'LSQPlusActivationQuantizer',
    'LSQPlusWeightQuantizer', 'LSQWeightQuantizer', 'PACTActivationQuantizer', 'PackedWeightsError',
    'Quantizer', 'StreamQuantizer', 'UninitializedIntervalError', 'WeightQuantizer',
    'build_quantizer', 'calibrate', 'calibrating', 'modes_kept', 'state_interval'
]
