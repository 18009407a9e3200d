"""From the config of a distillation to a teacher with its weights."""
from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

from mmaqd.checkpoints import CheckpointError, CheckpointMismatchError, refuse_foreign_state
from mmaqd.models import distill
from mmaqd.registry import MODELS

_BLOCK_KEYS = ('teacher', 'checkpoint', 'losses')


def add_distillation(model: nn.Module, distillation: dict, float_twin: dict) -> nn.Module:
    """Let ``model`` learn from a teacher, as a config says.

    Args:
        model: The detector that learns; changed in place.
        distillation: ``checkpoint`` of the teacher, ``losses`` (configs), and optionally
            ``teacher``: path of a whole config, or the config of a model.
        float_twin: Config of the teacher where ``distillation`` names none.

    Returns:
        ``model``.

    Raises:
        ValueError: A key is missing or unknown, or see :func:`mmaqd.models.distill`.
    """
    given = {key: value for key, value in distillation.items() if key != '_scope_'}
    unknown = sorted(set(given) - set(_BLOCK_KEYS))
    if unknown:
        raise ValueError(f'model.distillation: unknown key(s) {", ".join(unknown)}; known are '
                         f'{", ".join(_BLOCK_KEYS)}.')
    missing = [key for key in ('checkpoint', 'losses') if not given.get(key)]
    if missing:
        raise ValueError(f'model.distillation: {" and ".join(missing)} must be given: the file '
                         'with the trained weights of the teacher, and what is compared, e.g. '
                         "losses=[dict(type='mmaqd.FeatureDistillationLoss', module='neck')].")
    losses = [MODELS.build(loss) for loss in given['losses']]
    teacher = deepcopy(given.get('teacher') or float_twin)
    scope = getattr(DefaultScope.get_current_instance(), 'scope_name', None)
    return distill(model, TeacherSource(teacher, given['checkpoint'], scope).build, losses)


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher comes from.

    Attributes:
        cfg: Path of a config with a ``model``, or the config of a model.
        checkpoint: File or URL with its weights.
        scope: Default scope of types in ``cfg`` that are written without one.
    """

    cfg: dict | str
    checkpoint: str
    scope: str | None = None

    def build(self) -> nn.Module:
        """Build the teacher and load its weights.

        Raises:
            FileNotFoundError: The config or the checkpoint does not exist.
            CheckpointError: The checkpoint is damaged.
            CheckpointMismatchError: The checkpoint belongs to another detector.
        """
        cfg = Config.fromfile(self.cfg).model if isinstance(self.cfg, str) else self.cfg
        # The initial weights are overwritten at once; a run that draws random numbers for them
        # here would go on differently than one that was resumed and drew them in another epoch.
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope(self.scope):
            teacher = MODELS.build(deepcopy(cfg))
        refuse_foreign_state(teacher)
        try:
            load_checkpoint(teacher, self.checkpoint, map_location='cpu')
        except (FileNotFoundError, CheckpointError, CheckpointMismatchError) as error:
            raise type(error)(f'model.distillation.checkpoint: {error}') from error
        print_log(f'Distillation from {self.checkpoint}.', 'current')
        return teacher
