"""From the config of a float detector to one of its low-bit twin."""
from __future__ import annotations

import os
import os.path as osp
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Iterable, Iterator, Sequence

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from mmaqd.analysis import iterate_batches
from mmaqd.analysis.macs import image_channels
from mmaqd.functional import check_bit_width
from mmaqd.invocation import command
from mmaqd.models.quantization_table import LayerQuantization, quantization_table
from mmaqd.quantizers.calibration import check_data

from .images import random_batch
from .plan import EXACT_BITS, METHODS, Plan, make_plan
from .probing import Probe, probe
from .upstream import Upstream, build_without_download, has_masks, num_classes, read_upstream
from .writing import config_text

FLOAT_BITS = 32
# A detector whose layers need larger maps fails on the smaller images.
_SIZES = (128, 320, 512)
_DRAWS = 2
_FIRST_ITERATION = dict(epoch=0, iter=0, max_epochs=1, max_iters=1)


@dataclass(frozen=True)
class QuantizedConfig:
    """A low-bit config that was written, and what it makes of its detector.

    Attributes:
        path: The file.
        plan: Its block ``quantization``, with reasons.
        rows: The quantization table.
        macs_by_bits: Share of the multiply-accumulates by bits, 32 for float: of weight or input,
            whichever has more. They sum up to 1.
        frozen_norms: Number of BN layers that keep their statistics in training.
        loss_failed: Why the loss could not be computed while analysing, '' if it could.
        shape: Height and width of the images in pixels.
    """

    path: str
    plan: Plan
    rows: list[LayerQuantization]
    macs_by_bits: dict[int, float]
    frozen_norms: int
    loss_failed: str
    shape: tuple[int, int]

    @property
    def summary(self) -> str:
        """What was decided, in a few lines."""
        lines = [f'{rule.count:5} {rule.what}. {rule.why}' for rule in self.plan.rules]
        shares = ', '.join(f'{"float" if bits == FLOAT_BITS else f"{bits} bits"} {share:.1%}'
                           for bits, share in sorted(self.macs_by_bits.items()))
        size = ' x '.join(map(str, self.shape))
        lines = ['Exceptions:', *lines, f'Multiply-accumulates at {size} pixels: {shares}.']
        if self.frozen_norms:
            lines.append(
                f'{self.frozen_norms} BN layers are frozen. Low bits are more accurate where BN '
                'trains: --cfg-options model.backbone.norm_eval=False '
                'model.backbone.frozen_stages=-1, for the float model too.')
        return '\n'.join([*lines, f'Wrote {self.path}. Next: {command("train", self.path)}'])


def quantize_config(config: str,
                    out: str,
                    bits: int = 4,
                    method: str = 'liq',
                    cfg_options: dict | None = None,
                    size: int | None = None,
                    real_images: bool = False,
                    overwrite: bool = False) -> QuantizedConfig:
    """Write a config that trains a detector at low bits, and inherits that of the float one.

    The float detector is built with random weights, none are fetched, and run on a few images, also
    through its loss. What is seen of its layers, such as negative inputs, is written down as rules:
    nothing is decided again when the config is used. Then the written config is built and looked
    at as in calibration.

    Args:
        config: Path of a config, or the name of one of MMDetection's, such as
            ``'retinanet/retinanet_r50_fpn_1x_coco.py'``.
        out: The file to write, ending in ``.py``.
        bits: Bits of weights and inputs, 2 to 8.
        method: ``'liq'``, ``'lsq'`` or ``'lsqplus'``.
        cfg_options: Dotted keys of the config and their new values; they become part of ``out``.
        size: Height and width of random images in pixels; by default the first of 128, 320 and
            512 that the detector can work on.
        real_images: Look at batches of the training data instead of random images.
        overwrite: Replace ``out`` if it exists.

    Raises:
        ValueError: An argument is out of its range, ``out`` can't be written, ``config`` is not the
            config of a float detector.
        FileNotFoundError: There is no such config, or the data are missing.
        FileExistsError: ``out`` exists.
        RuntimeError: The float detector can't be built or does not run; the message says why.
    """
    check_bit_width(bits, 2, '--bits')
    if method not in METHODS:
        raise ValueError(f'method must be one of {", ".join(METHODS)}, but got {method!r}.')
    _check_out(out, config, overwrite)
    upstream = read_upstream(config, cfg_options)
    channels = image_channels(_built(upstream))
    with as_in_training():
        seen, batches = _look(upstream, channels, size, real_images)
        plan = make_plan(seen, bits, METHODS[method])
        text = config_text(_as_seen_from(out, upstream), plan, bits, METHODS[method])
        with open(out, 'w', encoding='utf-8') as file:
            file.write(text)
        model = _build_written(out)
        check_data(model, batches[:1], need_norms=True)
    rows = quantization_table(model)
    height, width = batches[0]['inputs'][0].shape[-2:]
    return QuantizedConfig(out, plan, rows, _shares(rows, seen), seen.frozen_norms,
                           seen.loss_failed, (height, width))


@contextmanager
def as_in_training() -> Iterator[None]:
    """Tell what asks for it, as the loss of TOOD does, that this is the first iteration."""
    known = MessageHub.get_current_instance().runtime_info
    missing = {key: value for key, value in _FIRST_ITERATION.items() if key not in known}
    known.update(missing)
    try:
        yield
    finally:
        for key in missing:
            known.pop(key, None)


def _check_out(out: str, config: str, overwrite: bool) -> None:
    folder = osp.dirname(osp.abspath(out))
    if osp.isdir(out) or not out.endswith('.py'):
        raise ValueError(f'--out must be the name of a config, which ends in .py, but got {out!r}.')
    if not osp.isdir(folder) or not os.access(folder, os.W_OK):
        raise ValueError(f'--out: {out!r} can not be written, since {folder} is no folder that can '
                         'be written to. Make it first, or give another one.')
    if osp.exists(out) and osp.exists(config) and osp.samefile(out, config):
        raise ValueError(
            f'--out: {out!r} is the config that is to be quantized. Give another name.')
    if osp.exists(out) and not overwrite:
        raise FileExistsError(f'--out: {out!r} exists already. Give another name, or --overwrite.')


def _as_seen_from(out: str, upstream: Upstream) -> Upstream:
    """With a relative path as MMEngine reads it: from the folder of the config that names it."""
    if not osp.isfile(upstream.base) or osp.isabs(upstream.base):
        return upstream
    folder = osp.dirname(osp.realpath(out))
    return replace(upstream, base=osp.relpath(osp.realpath(upstream.base), folder))


def _built(upstream: Upstream) -> nn.Module:
    try:
        return upstream.build()
    except Exception as error:
        raise RuntimeError(f'{upstream.base}: the float detector can not be built: '
                           f'{type(error).__name__}: {error}') from error


def _look(upstream: Upstream, channels: int, size: int | None,
          real: bool) -> tuple[Probe, Sequence[dict]]:
    """Run the detector on the first kind of images on which it works."""
    if real:
        batches = list(iterate_batches(upstream.cfg, 'train', _DRAWS))
        return probe(upstream.build, batches), batches
    failed: Exception | None = None
    for side in [size] if size else _SIZES:
        batches = [
            random_batch(
                side,
                channels,
                num_classes(upstream.cfg.model),
                seed=seed,
                with_masks=has_masks(upstream.cfg)) for seed in range(_DRAWS)
        ]
        try:
            return probe(upstream.build, batches), batches
        except Exception as error:
            failed = failed or error
    raise RuntimeError(
        f'{upstream.base}: the float detector does not run on random images of {size or _SIZES} '
        f'pixels: {_told(failed)}') from failed


def _told(error: Exception) -> str:
    """An error in a line; where it has no words, the place it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__}: {str(error) or f"{osp.basename(last.filename)}: {last.line}"}'


def _build_written(path: str) -> nn.Module:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    torch.manual_seed(_DRAWS)
    return build_without_download(cfg.model)


def _shares(rows: Iterable[LayerQuantization], seen: Probe) -> dict[int, float]:
    bits = {row.module: max(row.weight_bits, row.input_bits) for row in rows}
    for row in rows:
        layer: Any = seen.layers.get(row.module)
        if layer and layer.sees_image and layer.gets_integers and row.weight_bits < FLOAT_BITS:
            bits[row.module] = max(row.weight_bits, EXACT_BITS)
    work: Counter = Counter()
    for name, macs in seen.macs.items():
        work[bits.get(name, FLOAT_BITS)] += macs
    return {each: macs / max(sum(work.values()), 1) for each, macs in work.items()}
