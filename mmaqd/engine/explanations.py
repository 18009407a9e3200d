"""Errors from deep inside of torch, in words that name the module and what to do."""
from __future__ import annotations

from traceback import walk_tb

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def explain_single_value(error: BaseException, model: nn.Module) -> ValueError | None:
    """Name the BN that got one value per channel while training.

    Args:
        error: What torch raised.
        model: The model that was trained.

    Returns:
        The error to raise in its place; None if it is another one.
    """
    if not isinstance(error, ValueError) or 'more than 1 value per channel' not in str(error):
        return None
    shape = str(error).rpartition('torch.Size')[2] or 'one value'
    owners = [frame.f_locals.get('self') for frame, _ in walk_tb(error.__traceback__)]
    norms = [owner for owner in owners if isinstance(owner, _BatchNorm)]
    names = [name for name, module in model.named_modules() if norms and module is norms[-1]]
    return ValueError(
        f'{names[0] if names else "A BN"} got one value per channel {shape} while training, and no '
        'variance can be taken of one value: the batch has one image, and at this level of the '
        'pyramid it is one pixel large. Take batches of two images or more '
        '(train_dataloader.batch_size, with drop_last=True where the last one is smaller), larger '
        'images, or fewer levels (num_outs of the neck).')
