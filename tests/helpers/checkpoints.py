"""Writing checkpoints that a test made, and going on from them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.helpers.runs import make_runner


def saved(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def resume(cfg: Config, path: str | None = None) -> Runner:
    runner = make_runner(cfg, resume=True, load_from=path)
    runner.train()
    return runner
