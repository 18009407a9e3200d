"""Train with weights and feature maps in the channels-last memory format."""
from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmaqd.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays the model's weights, and thereby the outputs of its convs, out with the channels last.

    The convs of a CPU need not rearrange them then, nor those of a GPU in half precision. The
    numbers stay the same, up to the order of sums (which may decide to which code a value is
    rounded). Checkpoints can be loaded and resumed with and without it. With several processes
    torch warns of strides: gradients are copied once more, no number changes.
    """

    def before_train(self, runner: Runner) -> None:
        runner.model.to(memory_format=torch.channels_last)
