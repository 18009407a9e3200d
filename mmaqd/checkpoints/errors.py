"""What is raised for a checkpoint that can't be taken."""
from __future__ import annotations

from mmaqd.quantizers import CheckpointMismatchError

#: What to do about a file that is not whole.
REPLACE = ('copy or save it again, or name another checkpoint. After an interrupted training '
           '"--resume" without a path goes on from the last complete one.')


class CheckpointError(RuntimeError):
    """A file is there, but is not a whole and safe checkpoint."""


__all__ = ['REPLACE', 'CheckpointError', 'CheckpointMismatchError']
