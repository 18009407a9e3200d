"""What all that is written from a checkpoint shares: the detector, the file, the hash."""
from __future__ import annotations

import hashlib
import os
import os.path as osp
from dataclasses import dataclass
from pathlib import Path

import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

from mmaqd.paths import current_config
from mmaqd.registry import MODELS


@dataclass(frozen=True)
class Loaded:
    """A trained detector.

    Attributes:
        cfg: Its config, without what only its training needs.
        detector: In evaluation, on the CPU.
        meta: ``meta`` of its checkpoint.
    """

    cfg: Config
    detector: nn.Module
    meta: dict


def load_trained(config: str, checkpoint: str, cfg_options: dict | None = None) -> Loaded:
    """Build the detector of a config and load its checkpoint; no data is looked at.

    Args:
        config: Path of the config.
        checkpoint: Its checkpoint.
        cfg_options: Dotted keys of the config and their new values.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        CheckpointError, CheckpointMismatchError: The checkpoint is damaged or another model's.
    """
    cfg = Config.fromfile(current_config(config))
    cfg.merge_from_dict(cfg_options or {})
    cfg.model.pop('distillation', None)  # of the training alone
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        detector = MODELS.build(cfg.model).eval()
    meta = load_checkpoint(detector, checkpoint, map_location='cpu').get('meta', {})
    return Loaded(cfg, detector, meta)


def check_out(out: str, suffix: str) -> None:
    """Check that a file can be written, and make its folder.

    Raises:
        ValueError: It has another ending.
        PermissionError: It can't be written.
    """
    if not out.endswith(suffix):
        raise ValueError(f'--out: the file ends in {suffix}, but got {out!r}.')
    folder = osp.dirname(osp.abspath(out))
    os.makedirs(folder, exist_ok=True)
    if not os.access(out if osp.exists(out) else folder, os.W_OK) or osp.isdir(out):
        raise PermissionError(f"--out: {out!r} can't be written.")


def sha256_of(path: str) -> str:
    """Of a file; nothing for a URL."""
    file = Path(path).expanduser()
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ''
