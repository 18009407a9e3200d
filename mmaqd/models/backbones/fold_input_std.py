"""Load an ImageNet backbone into a detector whose images are not divided by a std."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule, PretrainedInit

from mmaqd.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class FoldInputStd(PretrainedInit):
    """``Pretrained``, and then the std of the images is folded into the first conv.

    The first conv of a low-bit detector takes the 8-bit image minus an integer mean, so the data
    preprocessor has std 1. A checkpoint that expects images divided by ``std`` is converted so
    that the backbone computes the same: the weights of input channel c are multiplied by s/std_c,
    s the mean of ``std``, and the following BN's running mean by s and variance by s^2. Folding
    only the ratio s/std_c into the weights keeps their size, and with it the learning rate that
    suits them (a conv in front of BN learns as fast as lr/|w|^2).

    Args:
        checkpoint: File or URL, as for ``Pretrained``.
        std: Standard deviation of each image channel that the checkpoint expects, in the order of
            the data preprocessor's output.
        conv: Name of the first conv in the module.
        norm: Name of the BN behind it; None when there is none, then 1/std_c is folded whole.
        prefix, map_location: As for ``Pretrained``.

    Raises:
        ValueError: ``std`` has another length than the conv has input channels.
    """

    def __init__(self,
                 checkpoint: str,
                 std: Sequence[float],
                 conv: str = 'conv1',
                 norm: str | None = 'bn1',
                 prefix: str | None = None,
                 map_location: str = 'cpu') -> None:
        super().__init__(checkpoint, prefix, map_location)
        self.std = std
        self.conv = conv
        self.norm = norm

    def __call__(self, module: nn.Module) -> None:
        super().__call__(module)
        self.fold(module)
        for child in module.children():
            if isinstance(child, BaseModule):
                child.is_init = True  # its own init_cfg must not overwrite what was loaded

    @torch.no_grad()
    def fold(self, module: nn.Module) -> None:
        """Fold the std into ``module``, whose weights expect images divided by it."""
        weight = module.get_submodule(self.conv).weight
        std = weight.new_tensor(self.std)
        if len(std) != weight.shape[1]:
            raise ValueError(f'FoldInputStd: std must have one value for each of the '
                             f'{weight.shape[1]} input channels of {self.conv}, but got '
                             f'{list(self.std)}.')
        common = std.mean() if self.norm else 1.0
        weight.mul_((common / std).view(1, -1, 1, 1))
        if self.norm:
            norm = module.get_submodule(self.norm)
            norm.running_mean.mul_(common)
            norm.running_var.mul_(common**2)
