"""All that is done with checkpoints. The rule:

**Read.** Every way in ends in :func:`read_checkpoint`: a file to a dict, by its extension
(``READERS``). Nothing that a file holds is run. The archive must be whole (its checksums are
compared), and may hold weights and plain training state only; text that MMEngine would run is
dropped or made comments. Any other file is a :class:`CheckpointError`, which names it.

A ``.safetensors`` file is a packed one (:func:`read_packed_file`), whose weights are codes.

**Fit.** What a model takes must be all of it and nothing else, by key and shape, with three
exceptions: a low-bit model starts from a float one, its quantizers without a value until data come
(calibration); one BN or one quantizer for all pyramid levels is spread over them; and a hook may
ask for a change of the bits (:func:`change_bits`) or of the classes (:func:`change_classes`) when
training starts. A low-bit checkpoint in a float model, other bits, another family or
normalization are a :class:`CheckpointMismatchError`. Values must be numbers that a training leaves
(:func:`check_values`): dense, finite, of the model's kind, intervals positive. A refused checkpoint
changes nothing. What one quantizer alone must agree with is in ``Quantizer.check_state``.

**Resume.** Training goes on from the last whole checkpoint (:func:`last_whole_checkpoint`), if it
holds all that training needs (:class:`ResumeCheck`). What starts anew or goes on differently is a
warning; paths outside the work dir are dropped.

**For the process.** Importing this package replaces in MMEngine, once: its loaders, by the function
made for that (``loaders.py``); ``mmengine.runner.checkpoint.load_state_dict``, in which all end
(``fitting.py``); and ``resume`` of its runners (``resuming.py``). The checks of the first and the
last are for every model, those of the second for low-bit states and values.
"""
from . import loaders
from .bits import change_bits
from .classes import change_classes
from .errors import CheckpointError, CheckpointMismatchError
from .fitting import refuse_foreign_state
from .keys import forget_stored_codes, quantizer_names
from .loaders import load_from_local
from .packed import WeightLayout, pack_state, read_packed_file
from .reading import READERS, read_checkpoint
from .resuming import last_whole_checkpoint
from .training_state import WORLD_SIZE, ResumeCheck
from .values import check_values

__all__ = [
    'READERS', 'WORLD_SIZE', 'CheckpointError', 'CheckpointMismatchError', 'ResumeCheck',
    'WeightLayout', 'change_bits', 'change_classes', 'check_values', 'forget_stored_codes',
    'last_whole_checkpoint', 'load_from_local', 'loaders', 'pack_state', 'quantizer_names',
    'read_checkpoint', 'read_packed_file', 'refuse_foreign_state'
]
