"""One row of the matrix of detectors: quantize a config, build, calibrate, train, predict."""
from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmaqd.conversion.automatic import (QuantizedConfig, as_in_training, build_without_download,
                                        has_masks, num_classes, quantize_config, random_batch)
from mmaqd.layers import MultiLevelModule
from mmaqd.quantizers import Quantizer, calibrate
from mmaqd.registry import MODELS


def detector_row(config: str,
                 options: dict | None = None,
                 bits: int = 4,
                 method: str = 'liq') -> dict[str, Any]:
    """What works of a detector at low bits, step by step until one fails.

    Args:
        config: Name of one of MMDetection's configs.
        options: Dotted keys of the config and their new values.
        bits: Bits of weights and inputs.
        method: Family of quantizers.

    Returns:
        ``exceptions`` (texts), ``macs`` (share by bits), ``multi_level`` (text), ``works`` (the
        steps that did) and, if one failed, ``error``.
    """
    row: dict[str, Any] = dict(config=config, works=[])
    with TemporaryDirectory() as folder, as_in_training():
        start = time.monotonic()
        try:
            result = quantize_config(config, str(Path(folder, 'low_bit.py')), bits, method, options)
            row['works'].append('config')
            row.update(_described(result))
            _run(Config.fromfile(result.path), result.shape[0], row)
        except Exception as error:
            row['error'] = f'{type(error).__name__}: {error}'
        row['seconds'] = round(time.monotonic() - start)
    return row


def _described(result: QuantizedConfig) -> dict[str, Any]:
    return dict(
        exceptions=[f'{rule.count} {rule.what}' for rule in result.plan.rules],
        rules=len(result.plan.block['rules']),
        macs={
            bits: round(share, 4)
            for bits, share in result.macs_by_bits.items()
        },
        loss_failed=result.loss_failed)


def _run(cfg: Config, size: int, row: dict[str, Any]) -> None:
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    batch = _batch(cfg, size)
    torch.manual_seed(1)
    model = build_without_download(cfg.model)
    row['calibrated'] = calibrate(model, [batch], need_norms=True)
    row['works'].append('calibrates')
    _train_step(model, batch, row)
    row['works'].append('trains')
    feats = []
    model.eval()
    head = getattr(model, 'bbox_head', None) or nn.Identity()
    handle = head.register_forward_pre_hook(lambda _, inputs: feats.extend(inputs[:1]))
    try:
        with torch.no_grad():
            model(**model.data_preprocessor(batch), mode='predict')
    finally:
        handle.remove()
        row['multi_level'] = _multi_level(cfg, next(iter(feats), None))
    row['works'].append('predicts')


def _train_step(model: nn.Module, batch: dict, row: dict[str, Any]) -> None:
    model.train()
    data = model.data_preprocessor(batch, training=False)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    row['loss'] = round(float(total), 4)
    if not torch.isfinite(total):
        raise ValueError(f'the loss is {float(total)}')
    total.backward()
    learned = {
        f'{name}.{key}': parameter
        for name, module in model.named_modules() if isinstance(module, Quantizer)
        for key, parameter in module.named_parameters() if parameter.requires_grad
    }
    without = [name for name, parameter in learned.items() if parameter.grad is None]
    row['learned'], row['without_gradient'] = len(learned), without
    bad = [
        name for name, parameter in learned.items()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    if bad:
        raise ValueError(f'the gradient of {bad[0]} (and {len(bad) - 1} others) is not finite')


def _batch(cfg: Config, size: int) -> dict:
    return random_batch(size, num_classes=num_classes(cfg.model), seed=9, with_masks=has_masks(cfg))


def _multi_level(cfg: Config, feats: Any) -> str:
    """Whether the head can get a BN for each level of the pyramid, and why not.

    Args:
        cfg: Config of a detector.
        feats: What its ``bbox_head`` gets, None where it has none or was not reached.
    """
    head = cfg.model.get('bbox_head')
    if not isinstance(head, dict) or feats is None:
        return 'no dense head'
    if not isinstance(feats, (list, tuple)) or len(feats) < 2:
        return 'no: one level'
    norm = dict(type='mmaqd.MultiLevelBN', num_levels=len(feats))
    settings = {key: cfg.model.get(key) for key in ('train_cfg', 'test_cfg')}
    try:
        model = MODELS.build({
            **head,
            **settings, 'type': 'mmaqd.MultiLevelHead',
            'head': head['type'],
            'norm_cfg': norm
        }).eval()
        layers = [each for each in model.modules() if isinstance(each, MultiLevelModule)]
        used: set[tuple[int, Any]] = set()
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(_note(used, number))
        with torch.no_grad():
            model(feats)
    except Exception as error:
        return f'no: {_reason(error)}'
    if not layers:
        return 'no: no norm in its towers'
    whole = len(used) == len(feats) * len(layers)
    return f'yes, {len(feats)} levels' if whole else 'no: its levels have layers of their own'


def _note(used: set, number: int) -> Callable:
    return lambda layer, _: used.add((number, layer.level))


def _reason(error: Exception) -> str:
    text = str(error)
    if 'norm_cfg' in text:
        return 'it takes no norm_cfg'
    return text.splitlines()[0][:80] if text else type(error).__name__
