"""What a quantizer raises, besides errors of its arguments."""


class UninitializedIntervalError(RuntimeError):
    """A quantizer was used before its interval had a value."""


class CalibrationError(ValueError, UninitializedIntervalError):
    """The data of a calibration, or what it reaches, does not fit the quantizers."""


class CheckpointMismatchError(ValueError):
    """A checkpoint was made by another model than the one that loads it."""
