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


def load_or_resume(runner: Runner) -> list[str]:
    """What a runner does before it trains, up to its checkpoint; returns its warnings."""
    warnings: list[str] = []
    runner.logger.warning = warnings.append
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    if runner.param_schedulers is not None:
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.call_hook('before_run')
    runner.load_or_resume()
    return warnings


def resume(cfg: Config, path: str | None = None) -> Runner:
    runner = make_runner(cfg, resume=True, load_from=path)
    runner.train()
    return runner
