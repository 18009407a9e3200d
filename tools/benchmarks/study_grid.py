"""The rows of the accuracy study: each is a config, what is changed in it, and where it starts.

Those of the full-size models are in ``study_full_size.py``, those of the small one here.

A row is added by adding it to one of the functions below. Its name is its folder, so a row whose
settings change should get another name. What it trains is exactly ``tools/train.py CONFIG
--cfg-options`` with its overrides.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping

from study_full_size import full_size_rows
from study_rows import BATCH_SIZE, TWIN_AS_TEACHER, Row, in_batches_of, schedule_of, trained_on

_SMALL = 'retinanet_r18-c16_fpn'
_SMALL_DETECTOR = 'RetinaNet-R18, 16 channels'
_NORMS = dict(mlbn='multi-level BN', bn='shared BN', gn='GN')
_SHARED_BN = {'model.bbox_head.norm_cfg._delete_': True, 'model.bbox_head.norm_cfg.type': 'BN'}
# Name in the tables, weight quantizer, input quantizer. PACT is about activations only; its paper
# has the weights of DoReFa.
_METHODS = dict(
    liq=('LIQ', 'LIQWeightQuantizer', 'LIQActivationQuantizer'),
    lsq=('LSQ', 'LSQWeightQuantizer', 'LSQActivationQuantizer'),
    lsqplus=('LSQ+', 'LSQPlusWeightQuantizer', 'LSQPlusActivationQuantizer'),
    pact=('PACT', 'DoReFaWeightQuantizer', 'PACTActivationQuantizer'),
    dorefa=('DoReFa', 'DoReFaWeightQuantizer', 'DoReFaActivationQuantizer'),
)
_WEIGHTS, _INPUTS = 'model.quantization.weight_quantizer', 'model.quantization.input_quantizer'
_DISTILLED = 'distillation of neck and outputs'
_DISTILLED_FROM_TWIN = 'distillation from the float model of 12 + 6 epochs'
_DISTILLED_FROM_LONGER = 'distillation from the float model of 12 + 24 epochs'
_START_AS_TEACHER = {'model.distillation.checkpoint': '{start}'}
_LONGER_AS_TEACHER = {'model.distillation.checkpoint': '{teacher}'}
_NOT_NORMALIZED = {f'{_WEIGHTS}.normalize': False}
_NOT_CENTERED = {f'{_WEIGHTS}.center': False}
_GRADIENT_FACTOR = {f'{_WEIGHTS}.gradient_factor': True, f'{_INPUTS}.gradient_factor': True}
# The quantizers of the first conv and of the prediction convs.
_FIRST_LAST_WEIGHTS = ('model.quantization.rules.0.weight_quantizer',
                       'model.quantization.rules.1.weight_quantizer')
_FIRST_LAST = (*_FIRST_LAST_WEIGHTS, 'model.quantization.rules.1.input_quantizer')
_FROZEN_BN = {'model.bbox_head.norm_eval': True}
# What makes a full-size config one of the small model.
_SMALL_SIZE = {
    'model.backbone.base_channels': 16,
    'model.neck.in_channels': [16, 32, 64, 128],
    'model.neck.out_channels': 64,
    'model.bbox_head.in_channels': 64,
    'model.bbox_head.feat_channels': 64
}


def all_rows() -> dict[str, Row]:
    """Every row by its name; what a row starts from stands before it."""
    rows = [
        *full_size_rows(),
        *_float_rows(),
        *_method_rows(),
        *_changed_rows(),
        *_post_training_rows(),
        *_mended_rows(),
    ]
    return {row.name: row for row in rows}


def _small_float(norm: str, epochs: str = '12e') -> str:
    return f'{_SMALL}_{norm}_{epochs}_bccd'


def _float_rows() -> list[Row]:
    rows = []
    for norm, title in _NORMS.items():
        name = _small_float(norm)
        twelve = Row(
            name, f'bccd/{name}.py', ('norms', ), _SMALL_DETECTOR, norm=title, note='12 epochs')
        reference = None if norm == 'mlbn' else _small_float('mlbn', '12e-6e')
        rows += [twelve, replace(trained_on(twelve), reference=reference)]
    return rows


def _small_low_bit(bits: int, norm: str = 'mlbn', method: str = 'liq', **fields: Any) -> Row:
    """A small low-bit row as the config has it, but for its method and its norm."""
    title, weights, inputs = _METHODS[method]
    with_config = bits if bits in (4, 2) else 4
    overrides = {
        **(_all_at(bits) if bits != with_config else {}),
        **(_SHARED_BN if norm == 'bn' else {})
    }
    if method != 'liq':
        overrides = {
            **overrides, f'{_WEIGHTS}._delete_': True,
            f'{_WEIGHTS}.type': f'mmaqd.{weights}',
            f'{_WEIGHTS}.bit_width': bits,
            f'{_INPUTS}.type': f'mmaqd.{inputs}'
        }
    suffix = '' if method == 'liq' else f'-{method}'
    row = Row(
        f'{_SMALL}_{norm}-w{bits}a{bits}{suffix}_6e_bccd',
        f'bccd/{_SMALL}_mlbn-w{with_config}a{with_config}_6e_bccd.py', ('methods', ),
        _SMALL_DETECTOR,
        method=title,
        norm=_NORMS[norm],
        bits=bits,
        overrides=overrides,
        start=_small_float(norm),
        twin=_small_float(norm, '12e-6e'))
    return replace(row, **fields)


def _method_rows() -> list[Row]:
    rows = []
    for bits, further in ((4, ('mended', )), (2, ('changes', 'mended'))):
        best = _small_low_bit(bits)
        for method in _METHODS:
            for norm in ('mlbn', 'bn'):
                row = _small_low_bit(bits, norm, method)
                if row.name == best.name:
                    rows.append(replace(row, groups=('methods', *further)))
                    continue
                row = replace(row, reference=best.name)
                rows += [row, _started_from_data(row)] if method == 'pact' else [row]
    return rows


def _started_from_data(pact: Row) -> Row:
    """Its paper starts at 10, from where a short training hardly moves."""
    return replace(
        pact,
        name=pact.name.replace('-pact_', '-pact-start_'),
        note='alpha starts from data',
        overrides={
            **pact.overrides, f'{_INPUTS}.start': 'least_error'
        })


def _changed(key: str,
             note: str,
             overrides: Mapping[str, Any],
             group: str = 'changes',
             bits: int = 2) -> Row:
    """LIQ with multi-level BN with something else in its config."""
    base = _small_low_bit(bits)
    return replace(
        base,
        name=base.name.replace('_6e_', f'-{key}_6e_'),
        groups=(group, ),
        note=note,
        overrides={
            **base.overrides,
            **overrides
        },
        reference=base.name)


def _changed_rows() -> list[Row]:
    plain = _changed('plain-weights', 'weights not normalized', _NOT_NORMALIZED)
    steady = _changed('plain-weights-factor', 'weights not normalized, gradient factor of LSQ', {
        **_NOT_NORMALIZED,
        **_GRADIENT_FACTOR
    })
    first_last = _changed('first-last-2', 'first and last convs at 2 bits',
                          dict.fromkeys((f'{each}.bit_width' for each in _FIRST_LAST), 2))
    return [
        plain,
        steady,
        _changed('scaled-weights', 'weights scaled, not centered', _NOT_CENTERED),
        _changed('per-channel', 'weights per channel', {f'{_WEIGHTS}.axis': 0}),
        _changed('start-constant', 'intervals start at 1', {
            f'{_WEIGHTS}.start': 'constant',
            f'{_INPUTS}.start': 'constant'
        }),
        _changed('start-max', 'intervals start at 0.8 max', {
            f'{_WEIGHTS}.start': 'max',
            f'{_INPUTS}.start': 'max'
        }),
        _changed('gradient-factor', 'gradient factor of LSQ', _GRADIENT_FACTOR),
        # As LIQ has it by default where weights are not normalized.
        _changed('first-last-factor', 'gradient factor of LSQ in the first and last convs only',
                 dict.fromkeys((f'{each}.gradient_factor' for each in _FIRST_LAST_WEIGHTS), True)),
        first_last,
        _changed(
            'first-last-2-factor', f'{first_last.note}, with the gradient factor of LSQ', {
                **first_last.overrides,
                **dict.fromkeys((f'{each}.gradient_factor' for each in _FIRST_LAST), True)
            }),
        # Normalized weights do not fit statistics that were frozen without them.
        _with_frozen_bn('frozen-bn', plain),
        _with_frozen_bn('frozen-bn-factor', steady),
    ]


def _with_frozen_bn(key: str, unfrozen: Row) -> Row:
    row = _changed(key, f'{unfrozen.note} ("unchanged" too), BN of the head frozen', {
        **unfrozen.overrides,
        **_FROZEN_BN
    })
    return replace(row, reference=unfrozen.name)


def _post_training_rows() -> list[Row]:
    """From the float model that trained as long as the low-bit rows."""
    return [_calibrated(bits, reestimates_bn) for reestimates_bn in (False, True)
            for bits in (8, 4)]  # yapf: disable


def _calibrated(bits: int, reestimates_bn: bool) -> Row:
    twin = _small_float('mlbn', '12e-6e')
    return Row(
        f'{_SMALL}_mlbn-w{bits}a{bits}-calibrated{"-bn" if reestimates_bn else ""}_bccd',
        f'bccd/{_SMALL}_mlbn-w4a4_6e_bccd.py',
        ('post_training', ),
        _SMALL_DETECTOR,
        method='LIQ, BN re-estimated' if reestimates_bn else 'LIQ',
        bits=bits,
        # A conv with normalized weights gives other outputs, which only training makes up for.
        overrides={
            **_NOT_NORMALIZED,
            **_all_at(bits)
        },
        start=twin,
        twin=twin,
        trains=False,
        reestimates_bn=reestimates_bn)


def _mended_rows() -> list[Row]:
    """What was tried to come closer to float; each against the row that it changes."""
    interval = 'optim_wrapper.paramwise_cfg.custom_keys.interval'
    return [
        _changed('interval-lr', 'interval learning rate / 10', {f'{interval}.lr_mult': 0.1},
                 'mended'),
        _changed('interval-decay', 'no weight decay of intervals', {f'{interval}.decay_mult': 0.0},
                 'mended'),
        _option('precisebn', 'BN re-estimated at the end'),
        _option('levels', 'an interval for each level in the head'),
        _option('distill', _DISTILLED, _START_AS_TEACHER),
        _option('distill-neck', 'distillation of the neck', {
            **_START_AS_TEACHER, 'model.distillation.losses.1.loss_weight': 0.0
        }),
        _option('distill-outputs', 'distillation of the outputs', {
            **_START_AS_TEACHER, 'model.distillation.losses.0.loss_weight': 0.0
        }),
        _option(
            'distill-strong', f'{_DISTILLED}, weights 3 and 6', {
                **_START_AS_TEACHER, 'model.distillation.losses.0.loss_weight': 3.0,
                'model.distillation.losses.1.loss_weight': 6.0
            }),
        _option('distill-twin', _DISTILLED_FROM_TWIN, TWIN_AS_TEACHER),
        *_rows_at_more_bits(),
        *_longer_rows(),
        *_small_better_taught_rows(),
        *_small_batch_rows(),
    ]


def _rows_at_more_bits() -> list[Row]:
    rows, note = [_small_low_bit(3, groups=('mended', ))], 'weights centered, as in the paper'
    for bits in (3, 4):
        rows += [
            _distilled(bits),
            _distilled(bits, 'distill-twin', _DISTILLED_FROM_TWIN, TWIN_AS_TEACHER),
            _changed('centered-weights', note, {f'{_WEIGHTS}.center': True}, 'mended', bits),
        ]
    return rows


def _distilled(bits: int,
               key: str = 'distill',
               note: str = _DISTILLED,
               overrides: Mapping[str, Any] | None = None) -> Row:
    """Distillation at more bits, where the configs do without."""
    overrides = {**_START_AS_TEACHER, **_all_at(bits), **_NOT_CENTERED, **(overrides or {})}
    row = _changed(key, note, overrides, 'mended', bits)
    return replace(row, config=_option('distill', note).config)


def _all_at(bits: int) -> dict[str, int]:
    return {f'{_WEIGHTS}.bit_width': bits, f'{_INPUTS}.bit_width': bits}


def _mended_float(epochs: int) -> Row:
    """The float row of so many epochs after twelve, with what was tried."""
    return replace(trained_on(_float_rows()[0], epochs), groups=('mended', ))


def _longer_rows() -> list[Row]:
    """Twelve low-bit epochs, against a float row that has trained for as long."""
    twin = _mended_float(12)
    progressive = _option('progressive', '6 epochs at 4 bits first')
    note = '12 low-bit epochs, distillation'
    rows = [
        _changed('12e', '12 low-bit epochs', schedule_of(12), 'mended'),
        _option('distill-12e', note, {
            **_START_AS_TEACHER,
            **schedule_of(12)
        }),
        replace(progressive, start=_small_low_bit(4).name),
        _distilled(4, 'distill-12e', note, schedule_of(12)),
    ]
    return [twin] + [replace(row, twin=twin.name) for row in rows]


def _small_better_taught_rows() -> list[Row]:
    """Taught by, or started from, a float model that trained longer."""
    longer = _mended_float(24)
    taught = [_option('distill-long', _DISTILLED_FROM_LONGER, _LONGER_AS_TEACHER)]
    taught += [
        _distilled(bits, 'distill-long', _DISTILLED_FROM_LONGER, _LONGER_AS_TEACHER)
        for bits in (3, 4)
    ]
    recipe = 'full-size recipe'
    taught += [
        _full_size_recipe(bits, 'recipe-long', f'{recipe}, {_DISTILLED_FROM_LONGER}',
                          _LONGER_AS_TEACHER) for bits in (4, 2)
    ]
    twin = trained_on(longer)
    started = _full_size_recipe(4, 'recipe-late', f'{recipe}, {longer.note} in float before',
                                TWIN_AS_TEACHER)
    return [
        longer,
        *(replace(row, teacher=longer.name) for row in taught),
        twin,
        replace(started, start=longer.name, twin=twin.name, reference=None),
    ]


def _small_batch_rows() -> list[Row]:
    """The full-size recipe and the float row that it is compared with, both in smaller batches."""
    twin = in_batches_of(_mended_float(6), 2)
    students = [
        in_batches_of(_full_size_recipe(bits, 'recipe', 'full-size recipe', TWIN_AS_TEACHER), 2)
        for bits in (4, 3, 2)
    ]
    return [twin, *(replace(row, twin=twin.name, reference=None) for row in students)]


def _full_size_recipe(bits: int, key: str, note: str, teacher: Mapping[str, Any]) -> Row:
    """The distilled full-size config with the channels and the batches of the small model."""
    row = _changed(key, note, {}, 'mended', bits)
    config = f'bccd/retinanet_r18_fpn_mlbn-w{bits}a{bits}-distill_6e_bccd.py'
    return replace(row, config=config, overrides={**_SMALL_SIZE, BATCH_SIZE: 8, **teacher})


def _option(key: str, note: str, overrides: Mapping[str, Any] | None = None) -> Row:
    """An option that has a config of its own, named by the first part of ``key``."""
    row = _changed(key, note, overrides or {}, 'mended')
    name = key.split('-')[0]
    return replace(row, config=row.config.replace('_6e_', f'-{name}_6e_'))
