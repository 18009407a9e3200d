"""Multiply-accumulates of whatever multiplies matrices in a forward pass, by module."""
from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Callable, Iterator, Sequence

import torch
import torch.nn as nn
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from .switching import only_quantized


def count_macs(model: nn.Module, *inputs: Any) -> dict[str, int]:
    """Multiply-accumulates of one forward pass, of every product of matrices and every convolution.

    They are those of the operators that run, so that linear layers, attention, transposed and
    deformable convolutions and products without a layer count, too. A layer that is shared over the
    pyramid levels counts once for each level.

    Args:
        model: Any model.
        *inputs: What its ``forward`` takes.

    Returns:
        Number for the whole batch by the name of the module that was running, in
        the order in which they ran.
    """
    counter = _Counter()
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(counter.enter(name)))
        handles.append(module.register_forward_hook(counter.leave))
    try:
        with counter, _slow_attention():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return counter.macs


def detector_macs(model: nn.Module, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of a detector for one image, without computing anything if possible.

    Args:
        model: A detector, whose intervals need no values.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Number by module name, in the order in which they run.
    """
    model = deepcopy(model).eval()
    image = torch.zeros(1, image_channels(model), height, width)
    samples = _samples(height, width) if isinstance(model, BaseDetector) else ()
    with torch.no_grad(), only_quantized(model, ()):
        try:
            return count_macs(deepcopy(model).to('meta'), image.to('meta'), *samples)
        except (NotImplementedError, RuntimeError):  # an operator, or a tensor, that needs values
            return count_macs(model.cpu(), image, *samples)


def _samples(height: int, width: int) -> tuple[list[DetDataSample]]:
    """What two-stage detectors and transformers ask about an image."""
    shape = height, width
    info = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape)
    return ([DetDataSample(metainfo=dict(info, scale_factor=(1.0, 1.0)))], )


def image_channels(model: nn.Module) -> int:
    """Number of channels of the images that a detector takes: 1 for grey ones, 3, 4, ...

    Args:
        model: A detector, or its backbone.

    Returns:
        What its first conv takes, of which a Focus layer in front makes four times as many; 3
        where there is no conv.
    """
    modules = list(getattr(model, 'backbone', model).modules())
    convs = [module for module in modules if isinstance(module, nn.Conv2d)]
    has_focus = any(type(module).__name__ == 'Focus' for module in modules)
    return convs[0].in_channels // (4 if has_focus else 1) if convs else 3


class _Counter(TorchDispatchMode):
    """Counts for the module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self._running = ['']

    def enter(self, name: str) -> Callable:
        return lambda module, args: self._running.append(name)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self,
                           func: Any,
                           types: Any,
                           args: Sequence[Any] = (),
                           kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket.__name__)
        if formula is not None:
            name = self._running[-1]
            self.macs[name] = self.macs.get(name, 0) + formula(output, *args)
        return output


def _convolution(output: Any, x: Any, weight: Any, *args: Any) -> int:
    is_transposed = len(args) > 4 and args[4] is True
    return (x if is_transposed else output).numel() * weight[0].numel()


def _product(output: Any, a: Any, b: Any, *_: Any) -> int:
    return output.numel() * a.shape[-1]


def _sum_and_product(output: Any, total: Any, a: Any, b: Any, *_: Any) -> int:
    return output.numel() * a.shape[-1]


def _attention(output: Any, query: Any, key: Any, value: Any, *_: Any) -> int:
    return query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_FORMULAS: dict[str, Callable[..., int]] = {
    name: formula
    for formula, names in {
        _convolution:
        'convolution conv1d conv2d conv3d',
        _product:
        'mm bmm mv linear matmul',
        _sum_and_product:
        'addmm addmm_ baddbmm baddbmm_ addmv addmv_',
        _attention:
        '_scaled_dot_product_flash_attention '
        '_scaled_dot_product_flash_attention_for_cpu '
        '_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention',
    }.items()
    for name in names.split()
}


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention as its operators one by one, not as one for all."""
    settings = getattr(torch.backends, 'mha', None)
    if settings is None:  # torch < 2.4
        yield
        return
    was_fast = settings.get_fastpath_enabled()
    settings.set_fastpath_enabled(False)
    try:
        yield
    finally:
        settings.set_fastpath_enabled(was_fast)
