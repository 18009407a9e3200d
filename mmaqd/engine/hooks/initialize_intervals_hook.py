"""Initialize the intervals from the training data, before training."""
from __future__ import annotations

from typing import Any, Iterator

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmaqd.engine.training_data import training_batches
from mmaqd.quantizers import Quantizer, calibrate
from mmaqd.registry import HOOKS

from .arguments import check_positive


@HOOKS.register_module()
class InitializeIntervalsHook(Hook):
    """Initializes the intervals that have no value yet from a few training batches.

    It runs after the checkpoint is loaded, so a model that starts from a float checkpoint is
    calibrated and one that resumes is left alone. The batches are loaded besides the training's
    own, whose data loader is not touched. They show what would go wrong without a word, also with
    quantizers that need no data: see :func:`mmaqd.quantizers.calibrate`. Weights that get another
    scale must have a norm behind them that trains.

    Args:
        num_batches: Number of training batches to look at, at least 1.
    """

    def __init__(self, num_batches: int = 4) -> None:
        check_positive(self, num_batches=num_batches)
        self.num_batches = num_batches

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        initialized = calibrate(model, self._batches(runner), need_norms=True)
        if initialized:
            runner.logger.info(f'Initialized {initialized} quantization intervals from at most '
                               f'{self.num_batches} training batches.{_frozen(model)}')
            if not runner.cfg.get('load_from') and not _is_pretrained(model):
                runner.logger.warning(
                    'The low-bit model is trained from scratch: load_from is None. Low bits need a '
                    'trained float checkpoint to start from. (The --resume of MMDetection\'s own '
                    'tools/train.py drops load_from where there is nothing to resume; ours keeps '
                    'it.)')

    def _batches(self, runner: Runner) -> Iterator[Any]:
        # A generator, so that no worker is launched when there is nothing to calibrate.
        yield from training_batches(runner, self.num_batches)


def _frozen(model: nn.Module) -> str:
    """A sentence about quantizers that frozen stages keep at their start, if there are any."""
    frozen = [
        name for name, module in model.named_modules()
        if isinstance(module, Quantizer) and any(not parameter.requires_grad
                                                 for parameter in module.parameters())
    ]
    if not frozen:
        return ''
    return (f' {len(frozen)} of them, {frozen[0]} the first, belong to frozen stages: like the '
            'weights there they are not trained and stay at their start.')


def _is_pretrained(model: nn.Module) -> bool:
    """Whether the detector as a whole gets its weights by its ``init_cfg``."""
    init_cfg = getattr(model, 'init_cfg', None) or {}
    configs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(each.get('type') == 'Pretrained' for each in configs)
