"""The mechanism by which a dense head that is shared over the pyramid becomes multi-level."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any, Callable, Iterable, Iterator

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.functional.blocks import is_compiling
from mmaqd.layers import MultiLevelModule, QuantLayer
from mmaqd.registry import MODELS

from .pyramid import Pyramid

_WARNING = 30


class MultiLevelHeadMixin:
    """Tells the layers of a shared dense head which pyramid level they are working on.

    Put it in front of an upstream head, whose own ``forward`` goes over the feature maps::

        @MODELS.register_module()
        class AQDGFLHead(MultiLevelHeadMixin, GFLHead):
            pass

    With ``norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5)`` the towers normalize each level
    by its own statistics. The weights of the shared convs are quantized once a forward, not once a
    level. With another ``norm_cfg`` the head computes what the upstream head does. (Without a class
    of its own, by config: :func:`MultiLevelHead`.)

    Args:
        *args: Those of the upstream head.
        norm_eval: Freeze the running statistics of BN and its variants while training, as the
            argument of this name does in MMDetection's backbones. Weight and bias go on learning.
            Weights that are quantized after a normalization do not fit statistics frozen without
            it; give their quantizer ``normalize=False``.
        **kwargs: Those of the upstream head.

    Raises:
        TypeError: It does not stand in front of a head.
    """

    #: Not needed any more: the level is named by the feature map that ``forward`` takes out.
    per_level_attributes: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        behind = cls.__mro__[cls.__mro__.index(MultiLevelHeadMixin) + 1:]
        if not any('forward' in each.__dict__ for each in behind if each is not nn.Module):
            raise TypeError(
                f'{cls.__name__}: MultiLevelHeadMixin needs an upstream head behind it whose '
                f'forward goes over the feature maps: class {cls.__name__}(MultiLevelHeadMixin, '
                'GFLHead), with the mixin first.')

    def __init__(self, *args: Any, norm_eval: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm_eval = norm_eval
        self._levels_were_checked = False

    def train(self, mode: bool = True) -> nn.Module:
        """Set training mode, where BN stays in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, feats: Iterable[Tensor], *args: Any, **kwargs: Any) -> tuple:
        """Apply the upstream head to every pyramid level.

        Args:
            feats: One feature map per level, each (N, C, H_i, W_i).
            *args, **kwargs: Whatever else the upstream head takes.

        Returns:
            What the upstream head returns: one list over the levels for each kind of prediction.

        Raises:
            TypeError: ``feats`` is a single tensor.
            ValueError: A layer has another number of levels than ``feats``.
        """
        if isinstance(feats, Tensor):
            raise TypeError(f'{type(self).__name__} takes one feature map per pyramid level, but '
                            'got a single tensor: put it into a list.')
        feats = tuple(feats)
        pyramid = Pyramid(feats, self._multi_level_layers(len(feats)))
        with ExitStack() as stack:
            for module in self.modules():
                if isinstance(module, QuantLayer):
                    stack.enter_context(module.quantize_weight_once())
            if not self._levels_were_checked and not is_compiling():
                stack.enter_context(self._levels_checked())
            try:
                return super().forward(pyramid, *args, **kwargs)
            finally:
                pyramid.name(None)

    def _multi_level_layers(self, num_feats: int) -> list[MultiLevelModule]:
        layers = []
        for name, module in self.named_modules():
            if not isinstance(module, MultiLevelModule):
                continue
            if module.num_levels != num_feats:
                raise ValueError(
                    f'{type(self).__name__}.{name} has num_levels={module.num_levels}, but the '
                    f'head got {num_feats} feature maps. Set num_levels of its '
                    f'{type(module).__name__} to num_outs of the neck.')
            layers.append(module)
        return layers

    @contextmanager
    def _levels_checked(self) -> Iterator[None]:
        """Look once which layers work on one level only, since each level has its own."""
        layers = {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, MultiLevelModule) and module.num_levels > 1
        }
        seen: dict[str, set] = {name: set() for name in layers}
        handles = [
            layer.register_forward_pre_hook(lambda layer, _, name=name: seen[name].add(layer.level))
            for name, layer in layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._levels_were_checked = True
        own = [name for name, levels in seen.items() if len(levels) == 1]
        if own:
            print_log(
                f'{type(self).__name__}: {own[0]} and {len(own) - 1} others see one pyramid level '
                'only, because each level has layers of its own. Their other levels are never '
                "used: take norm_cfg=dict(type='BN') and the upstream head.",
                'current',
                level=_WARNING)


@MODELS.register_module()
def MultiLevelHead(head: str | type, **arguments: Any) -> nn.Module:
    """Build an upstream dense head that is multi-level, by config alone.

    What is returned is an instance of ``head`` with :class:`MultiLevelHeadMixin` in front::

        bbox_head=dict(type='mmaqd.MultiLevelHead', head='GFLHead',
                       norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5), ...)

    Args:
        head: Type of the upstream head.
        **arguments: The head's own arguments, and ``norm_eval``.

    Raises:
        KeyError: There is no such head.
        TypeError: It is no head that goes over feature maps.
    """
    found = MODELS.get(head) if isinstance(head, str) else head
    if found is None:
        raise KeyError(f"mmaqd.MultiLevelHead: head must be the type of a dense head, such as "
                       f"'GFLHead', but {head!r} is not in the registry of models.")
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise TypeError('mmaqd.MultiLevelHead: head must be the type of a dense head, such as '
                        f"'GFLHead', but got {head!r}.")
    return _multi_level_class(found)(**arguments)


@lru_cache(maxsize=None)
def _multi_level_class(head: type) -> type:
    if issubclass(head, MultiLevelHeadMixin):
        return head
    return type(f'MultiLevel{head.__name__}', (MultiLevelHeadMixin, head),
                dict(__module__=__name__, __doc__=head.__doc__, __reduce__=_reduce))


def _reduce(self: nn.Module) -> tuple[Callable, tuple, dict]:
    # The class was made at run time, so copying and pickling name the upstream head.
    return _new_multi_level, (type(self).__mro__[2], ), self.__dict__


def _new_multi_level(head: type) -> nn.Module:
    multi_level = _multi_level_class(head)
    return multi_level.__new__(multi_level)


def check_levels_are_named(model: nn.Module) -> None:
    """Check that every layer with a module per pyramid level stands in a head that names it.

    Raises:
        ValueError: One does not.
    """
    named = {
        module
        for head in model.modules() if isinstance(head, MultiLevelHeadMixin)
        for module in head.modules()
    }
    for name, module in model.named_modules():
        if isinstance(module, MultiLevelModule) and module not in named:
            raise ValueError(
                f'{name}: a {type(module).__name__} works where a shared dense head goes over the '
                "pyramid levels. In such a head, take type='mmaqd.MultiLevelHead' with "
                "head='GFLHead' (its type) or mmaqd.AQDRetinaHead, AQDFCOSHead, AQDATSSHead; in a "
                "backbone or neck, norm_cfg=dict(type='BN').")
