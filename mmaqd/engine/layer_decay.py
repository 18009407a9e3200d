"""Learning rates that decay layer by layer, without weight decay of what quantizers learn."""
from __future__ import annotations

from mmdet.engine.optimizers import LearningRateDecayOptimizerConstructor as _Upstream
from mmengine.config import Config
from torch import nn

from mmaqd.registry import OPTIM_WRAPPER_CONSTRUCTORS

_NAME = _Upstream.__name__


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LearningRateDecayOptimizerConstructor(_Upstream):
    """:class:`mmdet.engine.LearningRateDecayOptimizerConstructor`, sparing single values.

    Upstream's spares biases and norms by their one dimension. The interval of a quantizer is a
    single value, without any, and weight decay would pull it to zero.
    """

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        groups: list[dict] = []
        super().add_params(groups, module, **kwargs)
        for group in groups:
            params += _split(group) if group['weight_decay'] else [group]


def spare_single_values(cfg: Config) -> None:
    """Let a low-bit config that names upstream's constructor have this one."""
    wrapper = cfg.get('optim_wrapper') or {}
    if cfg.model.get('type') == 'mmaqd.QuantizedDetector' \
            and str(wrapper.get('constructor')).rpartition('.')[2] == _NAME:
        wrapper['constructor'] = f'mmaqd.{_NAME}'


def _split(group: dict) -> list[dict]:
    """The group without its single values, and these without decay; empty ones are left out."""
    parts = []
    for single in (False, True):
        chosen = [(value, name) for value, name in zip(group['params'], group['param_names'])
                  if (value.ndim == 0) is single]  # yapf: disable
        if chosen:
            values, names = map(list, zip(*chosen))
            part = {**group, 'params': values, 'param_names': names}
            if single:
                part.update(weight_decay=0., group_name=f'{group["group_name"]}_single_values')
            parts.append(part)
    return parts
