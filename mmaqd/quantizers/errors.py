"""What a quantizer raises, besides errors of its arguments."""


class UninitializedIntervalError(RuntimeError, AttributeError):
    """A quantizer was used before its interval had a value.

    It is an AttributeError too, so that whoever asks by ``hasattr`` is told no.
    """


class CalibrationError(ValueError, UninitializedIntervalError):
    """The data of a calibration, or what it reaches, does not fit the quantizers."""


class CheckpointMismatchError(ValueError):
    """A checkpoint was made by another model than the one that loads it."""
