"""The config type by which a detector is built quantized."""
from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log

from mmaqd.checkpoints import refuse_foreign_state
from mmaqd.models.dense_heads import check_levels_are_named
from mmaqd.models.quantization_table import format_table, quantization_table
from mmaqd.quantizers import Quantizer, WeightQuantizer
from mmaqd.quantizers.batch_statistics import frozen_norms
from mmaqd.registry import MODELS

from .prepare import prepare
from .schema import check_block, check_detector, check_distillation
from .teacher import add_distillation


@MODELS.register_module()
def QuantizedDetector(detector: str | None = None,
                      quantization: dict | None = None,
                      distillation: dict | None = None,
                      **arguments: Any) -> nn.Module:
    """Build an upstream detector and quantize its layers.

    What is returned is an ordinary instance of ``detector``, so everything that works on that
    works on it. A table of what was done is logged. Loading the checkpoint of another detector
    into it, or one of other bit widths, is an error.

    With ``distillation`` its training loss also compares it with a teacher, which is built at the
    first training loss and is no part of it: it is neither saved nor trained, and inference does
    not know it.

    Args:
        detector: Type of the detector, e.g. ``'RetinaNet'``.
        quantization: ``weight_quantizer``, ``input_quantizer``, ``rules`` and ``stream``, as
            :func:`mmaqd.conversion.prepare` takes them.
        distillation: None, or ``checkpoint`` (trained weights of the teacher), ``losses`` (configs
            such as ``dict(type='mmaqd.FeatureDistillationLoss', module='neck')``) and optionally
            ``teacher``, path of a config or config of a model; by default the teacher is the same
            detector without quantization.
        **arguments: The detector's own arguments.

    Raises:
        ValueError, TypeError, KeyError: ``detector``, ``quantization`` or ``distillation`` is not
            what it must be, nothing is quantized, a multi-level layer stands outside of a head, or
            see :func:`prepare` and :func:`mmaqd.models.distill`.
    """
    check_detector(detector)
    block = check_block(quantization)
    if distillation is not None:
        check_distillation(distillation)
    float_twin = dict(type=detector, **deepcopy(arguments))
    model = prepare(MODELS.build(dict(type=detector, **arguments)), **block)
    _check_quantizes(model)
    check_levels_are_named(model)
    refuse_foreign_state(model)
    _warn_of_frozen_norms(model)
    if distillation is not None:
        add_distillation(model, distillation, float_twin)
    print_log(f'{detector}, quantized:\n{format_table(quantization_table(model))}', 'current')
    return model


def _warn_of_frozen_norms(model: nn.Module) -> None:
    """Say that weights get another scale where BN is frozen; the hook refuses what does not fit."""
    rescaling = [
        module.name for module in model.modules()
        if isinstance(module, WeightQuantizer) and module.kernel.normalizes
    ]
    frozen = frozen_norms(model) if rescaling else set()
    if frozen:
        print_log(
            f'{len(frozen)} BN layers keep their statistics while training (norm_eval, '
            f'frozen_stages), but {len(rescaling)} quantizers bring weights to another scale, '
            f'{rescaling[0]} among them. Behind such weights BN must train, or have been trained '
            'with them: mmaqd.InitializeIntervalsHook checks it. Otherwise set norm_eval=False and '
            'frozen_stages=-1, or quantize the weights at their own scale (normalize=False).',
            'current',
            level=30)


def _check_quantizes(model: nn.Module) -> None:
    if not any(isinstance(module, Quantizer) for module in model.modules()):
        raise ValueError(
            'model.quantization quantizes nothing: weight_quantizer and input_quantizer are None '
            "for every module. Give at least one, e.g. weight_quantizer=dict(type='mmaqd."
            "LIQWeightQuantizer', bit_width=4), or build the float detector by its own type.")
