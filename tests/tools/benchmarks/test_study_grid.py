"""The rows: names, what they start from, and the models that their configs come to."""
from __future__ import annotations

import re

import pytest
import torch
from mmengine.registry import DefaultScope
from study_grid import all_rows
from study_rows import FLOAT_BITS, GROUPS
from study_runs import build_runs
from torch import nn

from mmaqd.conversion import quantization_table
from mmaqd.layers import MultiLevelBN
from mmaqd.registry import MODELS

ROWS = all_rows()
RUNS = {run.row.name: run for run in build_runs(ROWS, [0], 'out', 'test')}
LOW_BIT = [name for name, row in ROWS.items() if row.bits < FLOAT_BITS]
BASE = 'retinanet_r18-c16_fpn_mlbn-w2a2_6e_bccd'
FULL_SIZE = 'retinanet_r18_fpn_mlbn-w4a4-distill_6e_bccd'
SCHEDULE = ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader')


def build(name: str) -> nn.Module:
    """The model of a row, without memory for its weights."""
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(RUNS[name].config.model)


def test_the_promised_rows_exist():
    small = 'retinanet_r18-c16_fpn'
    promised = {
        f'{detector}_r18_fpn_mlbn{rest}_bccd'
        for detector in ('retinanet', 'fcos')
        for rest in ('_12e', '_12e-6e', '-w4a4_6e', '-w3a3_6e', '-w2a2_6e')
    }
    promised |= {
        f'{small}_{norm}_{epochs}_bccd'
        for norm in ('mlbn', 'bn', 'gn')
        for epochs in ('12e', '12e-6e')
    }
    promised |= {
        f'{small}_{norm}-w{bits}a{bits}{method}_6e_bccd'
        for norm in ('mlbn', 'bn')
        for bits in (4, 2)
        for method in ('', '-lsq', '-lsqplus', '-pact', '-dorefa')
    }
    assert promised <= set(ROWS)


@pytest.mark.parametrize('name', ROWS)
def test_rows_refer_to_rows_before_them_and_to_groups(name):
    row, before = ROWS[name], list(ROWS)[:list(ROWS).index(name)]
    assert set(row.groups) and set(row.groups) <= set(GROUPS)
    assert set(row.needs.values()) <= set(before)
    assert row.twin is None or row.twin in before
    assert row.reference is None or (row.reference in ROWS and row.reference != name)


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.teacher])
def test_a_teacher_is_a_float_row_that_trained_longer_than_the_twin(name):
    row = ROWS[name]
    assert row.needs['teacher'] == row.teacher
    assert ROWS[row.teacher].bits == FLOAT_BITS
    assert total_epochs(row.teacher) > total_epochs(row.twin)
    assert row.teacher in str(RUNS[name].config.model.distillation.checkpoint)


def total_epochs(name: str) -> int:
    """Epochs of a row and of all that it starts from."""
    start = ROWS[name].start
    return RUNS[name].epochs + (total_epochs(start) if start else 0)


@pytest.mark.parametrize('name', LOW_BIT)
def test_a_low_bit_row_is_compared_with_a_float_row_of_as_many_epochs(name):
    row = ROWS[name]
    twin = ROWS[row.twin]
    assert (twin.bits, twin.detector, twin.norm) == (FLOAT_BITS, row.detector, row.norm)
    if row.trains:
        assert total_epochs(name) == total_epochs(row.twin)
        assert twin.start in (row.start, ROWS[row.start].start)
    else:
        assert row.start == twin.name


@pytest.mark.parametrize(
    'name', [name for name in LOW_BIT if ROWS[name].trains and 'mended' not in ROWS[name].groups])
def test_every_row_has_the_schedule_of_its_twin(name):
    config, twin = RUNS[name].config, RUNS[ROWS[name].twin].config
    assert [config[key] for key in SCHEDULE] == [twin[key] for key in SCHEDULE]


@pytest.mark.parametrize('name', [name for name in LOW_BIT if re.search(r'-b\d+_', name)])
def test_a_row_in_other_batches_is_compared_with_a_twin_in_these(name):
    config, twin = RUNS[name].config, RUNS[ROWS[name].twin].config
    assert [config[key] for key in SCHEDULE] == [twin[key] for key in SCHEDULE]
    assert f'-b{config.train_dataloader.batch_size}_' in name
    assert RUNS[ROWS[name].start].config.train_dataloader.batch_size == 8
    assert ROWS[name].start == ROWS[ROWS[name].twin].start


@pytest.mark.parametrize('name', ROWS)
def test_the_model_is_what_the_row_says(name):
    row, model = ROWS[name], build(name)
    norms = {type(module).__name__ for module in model.bbox_head.modules()}
    assert ('MultiLevelBN' in norms) == (row.norm == 'multi-level BN')
    assert ('GroupNorm' in norms) == (row.norm == 'GN')
    table = {each.module: each for each in quantization_table(model)}
    inner = table['backbone.layer1.0.conv1']
    assert (inner.weight_bits, inner.input_bits) == (row.bits, row.bits)
    if row.bits == FLOAT_BITS:
        return
    method = row.method.split(',')[0].replace('+', 'Plus')
    assert inner.input_quantizer == f'{method}ActivationQuantizer'
    assert inner.weight_quantizer == f'{method}WeightQuantizer'.replace('PACT', 'DoReFa')
    first, last = table['backbone.conv1'], table['bbox_head.retina_cls' if 'retinanet' in
                                                 name else 'bbox_head.conv_cls']
    edge_bits = 2 if 'first-last-2' in name else 8
    assert (first.weight_bits, first.input_quantizer) == (edge_bits, None)
    assert (last.weight_bits, last.input_bits) == (edge_bits, edge_bits)
    assert last.weight_quantizer == 'LIQWeightQuantizer'


def test_the_unchanged_small_row_is_the_file_of_its_config():
    assert (ROWS[BASE].config, ROWS[BASE].overrides) == (f'bccd/{BASE}.py', {})


@pytest.mark.parametrize('name', [name for name in ROWS if name.startswith(BASE[:-8] + '-')])
def test_a_changed_row_differs_from_the_unchanged_one(name):
    if ROWS[name].method == 'LIQ':
        base, changed = RUNS[BASE].config.to_dict(), RUNS[name].config.to_dict()
        assert changed != base


def test_settings_of_changed_rows():
    quantization = {
        key: RUNS[BASE.replace('_6e', f'-{key}_6e')].config.model.quantization
        for key in ('plain-weights', 'per-channel', 'start-constant', 'start-max',
                    'gradient-factor', 'frozen-bn')
    }
    assert quantization['plain-weights'].weight_quantizer.normalize is False
    assert quantization['per-channel'].weight_quantizer.axis == 0
    for role in ('weight_quantizer', 'input_quantizer'):
        assert quantization['start-constant'][role].start == 'constant'
        assert quantization['start-max'][role].start == 'max'
        assert quantization['gradient-factor'][role].gradient_factor is True
    assert quantization['frozen-bn'].weight_quantizer.normalize is False
    frozen = RUNS[BASE.replace('_6e', '-frozen-bn_6e')].config.model.bbox_head
    assert frozen.norm_eval is True and frozen.norm_cfg.type == 'mmaqd.MultiLevelBN'


def test_shared_bn_is_one_bn():
    name = 'retinanet_r18-c16_fpn_bn-w2a2-lsq_6e_bccd'
    assert RUNS[name].config.model.bbox_head.norm_cfg == dict(type='BN')
    head = build(name).bbox_head
    assert not [module for module in head.modules() if isinstance(module, MultiLevelBN)]


@pytest.mark.parametrize('name', [name for name in ROWS if '-recipe-' in name])
def test_the_full_size_recipe_on_the_small_model_takes_the_weights_of_the_small_model(name):
    assert shapes(ROWS[name].start).items() <= shapes(name).items()
    distillation = RUNS[name].config.model.distillation
    assert distillation.losses == RUNS[FULL_SIZE].config.model.distillation.losses


def shapes(name: str) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in build(name).state_dict().items()}
