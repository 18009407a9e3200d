"""Detectors of MMDetection with more than convs, at 4 bits: start, train, predict, save."""
from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from torch import nn

from mmaqd.analysis import detector_macs, layer_sizes
from mmaqd.analysis.size import with_float_work
from mmaqd.checkpoints import change_bits
from mmaqd.conversion import quantization_table
from mmaqd.export import lower_detector
from mmaqd.layers import QuantDeformConv2dPack, QuantMultiheadAttention
from mmaqd.quantizers import calibrate
from tests.helpers.detector import build, loss, make_batch
from tests.helpers.upstream import INPUT, WEIGHT, low_bit, tiny_resnet, upstream_model

_ROI = {
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.bbox_head.num_classes': 3,
}
_MASK = {
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
    'model.roi_head.mask_head.num_classes': 3,
}
_ATTENTION = dict(embed_dims=32, num_heads=4)
_DETR = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [64],
    'model.neck.out_channels': 32,
    'model.num_queries': 10,
    'model.encoder.num_layers': 1,
    'model.decoder.num_layers': 2,
    'model.positional_encoding.num_feats': 16,
    'model.bbox_head.embed_dims': 32,
    'model.bbox_head.num_classes': 3,
    'model.test_cfg.max_per_img': 5,
    **{
        f'model.{part}.layer_cfg.{block}.{key}': value
        for part in ('encoder', 'decoder')
        for block, sizes in dict(
            self_attn_cfg=_ATTENTION, ffn_cfg=dict(embed_dims=32, feedforward_channels=64)).items()
        for key, value in sizes.items()
    },
    **{
        f'model.decoder.layer_cfg.cross_attn_cfg.{key}': value
        for key, value in _ATTENTION.items()
    },
}
_CENTERNET = {
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.num_deconv_filters': [32, 16, 8],
    'model.bbox_head.in_channels': 8,
    'model.bbox_head.feat_channels': 8,
    'model.bbox_head.num_classes': 3,
}
# Offsets decide where a deformable conv looks: more bits than for what it sees.
_OFFSETS = [
    dict(
        pattern='*.conv_offset',
        weight_quantizer=dict(bit_width=8),
        input_quantizer=dict(bit_width=8))
]
_OWN_TABLES = ['query_embedding']


class Case(NamedTuple):
    config: str
    changes: dict
    rules: list = []
    in_float: list = []


CASES = {
    'Faster R-CNN':
    Case('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', tiny_resnet(**_ROI)),
    'Mask R-CNN':
    Case('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', tiny_resnet(**_ROI, **_MASK)),
    'DCN':
    Case('dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', tiny_resnet(50, **_ROI), _OFFSETS),
    'DCNv2':
    Case('dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py', tiny_resnet(50, **_ROI), _OFFSETS),
    'CenterNet':
    Case('centernet/centernet_r18_8xb16-crop512-140e_coco.py', _CENTERNET),
    'DETR':
    Case('detr/detr_r50_8xb2-150e_coco.py', _DETR, [], _OWN_TABLES),
}
_EFFICIENT_NET = Case(
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py', {
        'model.backbone.arch': 'b0',
        'model.neck.in_channels': [40, 112, 320],
        'model.neck.out_channels': 16,
        'model.bbox_head.in_channels': 16,
        'model.bbox_head.feat_channels': 16,
    })
cases = pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
DETR = CASES['DETR']


def config(case: Case, **quantizers: Any) -> ConfigDict:
    return low_bit(upstream_model(case.config, case.changes), case.rules, **quantizers)


def batch_of(model: nn.Module) -> dict:
    # A deformable conv of the first version takes no map that is smaller than its kernel.
    batch = make_batch(size=96)
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(border=np.array([0., 96, 0, 96]), batch_input_shape=(96, 96)))
        sample.gt_instances.masks = BitmapMasks(np.ones((1, 96, 96), np.uint8), 96, 96)
    return batch


def predicted(model: nn.Module) -> list[torch.Tensor]:
    """Boxes and scores of both images, with random numbers of the model alike in all calls."""
    torch.manual_seed(0)
    model.eval()
    with torch.no_grad():
        results = model.test_step(batch_of(model))
    return [each for result in results for each in (result.pred_instances.bboxes,
                                                    result.pred_instances.scores)]  # yapf: disable


@pytest.mark.slow
@cases
def test_it_calibrates_trains_predicts_and_is_saved(case: Case) -> None:
    model = build(config(case))
    rows = quantization_table(model)
    assert [row.module for row in rows if row.weight_bits == 32] == case.in_float
    calibrate(model, [batch_of(model)])
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model.train()
    total = loss(model, batch_of(model))
    total.backward()
    assert total.isfinite()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    optimizer.step()
    assert loss(model, batch_of(model)).isfinite()
    found = predicted(model)
    assert all(each.isfinite().all() for each in found)
    copied = build(config(case), seed=1)
    copied.load_state_dict(model.state_dict())
    assert all(torch.equal(*pair) for pair in zip(predicted(copied), found))


@cases
def test_the_state_of_the_float_twin_fits(case: Case) -> None:
    float_model = build(upstream_model(case.config, case.changes), seed=1)
    model = build(config(case))
    model.load_state_dict(float_model.state_dict(), strict=False)
    quantized = {name: each for name, each in model.named_parameters() if '_quantizer.' not in name}
    for name, parameter in float_model.named_parameters():
        assert torch.equal(quantized.pop(name), parameter)
    assert not quantized


@pytest.mark.parametrize('name', [*CASES, 'EfficientNet'])
def test_init_weights_gives_what_the_float_twin_gets(name: str) -> None:
    case = {**CASES, 'EfficientNet': _EFFICIENT_NET}[name]
    upstream = upstream_model(case.config, case.changes)
    if name == 'EfficientNet':
        upstream.backbone.frozen_stages = 0  # It knows no -1.
    states = []
    for cfg in (upstream, low_bit(upstream, case.rules)):
        model = build(cfg)
        torch.manual_seed(0)
        model.init_weights()
        states.append(model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@cases
def test_in_float_it_predicts_what_the_float_twin_does(case: Case) -> None:
    model = build(config(case))
    rule = dict(pattern='*', weight_quantizer=None, input_quantizer=None)
    one = dict(rule, pattern='backbone.conv1', input_quantizer={**INPUT, 'bit_width': 8})
    almost = build(low_bit(upstream_model(case.config, case.changes), [rule, one]))
    float_model = build(upstream_model(case.config, case.changes))
    float_model.load_state_dict(almost.state_dict(), strict=False)
    almost.backbone.conv1.input_quantizer = None
    for found, expected in zip(predicted(almost), predicted(float_model)):
        torch.testing.assert_close(found, expected)
    del model


def test_names_of_what_is_quantized_in_a_two_stage_detector() -> None:
    model = build(config(CASES['DCN']))
    table = {row.module: row for row in quantization_table(model)}
    for name in ('shared_fcs.0', 'shared_fcs.1', 'fc_cls', 'fc_reg'):
        row = table[f'roi_head.bbox_head.{name}']
        assert (row.weight_bits, row.input_bits) == (4, 4)
    deformable = [name for name, each in model.named_modules()
                  if isinstance(each, QuantDeformConv2dPack)]  # yapf: disable
    assert len(deformable) == 13
    assert all(table[name].weight_bits == 4 for name in deformable)
    assert all(table[f'{name}.conv_offset'].weight_bits == 8 for name in deformable)


class TestAttention:
    """DETR's attention, as mmcv wraps it."""

    def test_rules_for_the_attention_and_for_its_projections(self) -> None:
        rules = [
            dict(module_type='MultiheadAttention', weight_quantizer=dict(bit_width=6)),
            dict(pattern='encoder.*.attn', weight_quantizer=None, input_quantizer=None),
            dict(pattern='encoder.*.out_proj', weight_quantizer=None, input_quantizer=None),
            dict(pattern='*.cross_attn.attn.v_proj', input_quantizer=dict(bit_width=8)),
        ]
        model = build(config(DETR._replace(rules=rules)))
        bits = {row.module: (row.weight_bits, row.input_bits) for row in quantization_table(model)}
        assert type(model.encoder.layers[0].self_attn.attn) is nn.MultiheadAttention
        assert bits['encoder.layers.0.self_attn.attn'] == (32, 32)
        attention = 'decoder.layers.1.cross_attn.attn'
        assert isinstance(model.get_submodule(attention), QuantMultiheadAttention)
        assert attention not in bits, 'its projections stand for it'
        assert bits[f'{attention}.q_proj'] == bits[f'{attention}.out_proj'] == (6, 4)
        assert bits[f'{attention}.v_proj'] == (6, 8)
        assert bits['encoder.layers.0.ffn.layers.0.0'] == (4, 4)

    def test_the_number_of_weights_is_that_of_the_float_twin(self) -> None:
        tables = [quantization_table(build(each)) for each in (
            config(DETR), upstream_model(DETR.config, DETR.changes))]  # yapf: disable
        assert len({sum(row.num_weights for row in table) for table in tables}) == 1

    def test_every_product_is_in_the_report_of_sizes(self) -> None:
        models = build(config(DETR)), build(upstream_model(DETR.config, DETR.changes))
        counts = [sum(detector_macs(model, 64, 64).values()) for model in models]
        assert counts[0] == counts[1] > 0
        macs = detector_macs(models[0], 64, 64)
        layers = layer_sizes(with_float_work(quantization_table(models[0]), macs), macs)
        in_float = {layer.module: layer for layer in layers if layer.weight_bits == 32}
        # What is in float: the two products of each attention, and tables that multiply nothing.
        attention = in_float.pop('encoder.layers.0.self_attn.attn')
        assert attention.macs == 2 * 4 * 4 * 32 and attention.num_weights == 0
        assert in_float.pop('query_embedding').macs == 0
        assert all(re.fullmatch(r'decoder\.layers\.\d\.(self|cross)_attn\.attn', name)
                   for name in in_float)  # yapf: disable

    def test_signed_inputs_are_refused_with_rules_that_end_it(self) -> None:
        unsigned = {key: value for key, value in INPUT.items() if key != 'signed'}
        model = build(config(DETR, input_quantizer=unsigned))
        with pytest.raises(ValueError, match='must not be negative') as error:
            calibrate(model, [batch_of(model)])
        lines = [line for line in str(error.value).splitlines() if line.startswith('    dict(')]
        rules = [eval(line.strip().rstrip(',')) for line in lines]
        model = build(config(DETR._replace(rules=rules), input_quantizer=unsigned))
        assert calibrate(model, [batch_of(model)]) > 0

    def test_change_of_bits(self) -> None:
        model = build(config(DETR))
        calibrate(model, [batch_of(model)])
        state = dict(model.state_dict())
        narrow = build(config(DETR, weight_quantizer=dict(WEIGHT, bit_width=2)))
        names = change_bits(state, narrow, keep=True)
        assert 'decoder.layers.0.self_attn.attn.k_proj.weight_quantizer' in names
        narrow.load_state_dict(state)
        projection = narrow.decoder.layers[0].self_attn.attn.k_proj
        assert projection.weight_quantizer.bit_width == 2
        assert bool(projection.weight_quantizer.initialized)


@pytest.mark.parametrize('name', ['Faster R-CNN', 'DCN', 'CenterNet'])
def test_every_layer_has_its_share_of_the_work(name: str) -> None:
    model = build(config(CASES[name]))
    macs = detector_macs(model, 96, 96)
    rows = with_float_work(quantization_table(model), macs)
    layers = layer_sizes(rows, macs)
    assert all(layer.macs > 0 for layer in layers)
    assert all(layer.weight_bits < 32 for layer in layers)


@pytest.mark.parametrize('allow_float', [False, True])
def test_integers_are_refused_by_the_name_of_the_layer(allow_float: bool) -> None:
    model = build(config(CASES['CenterNet']))
    calibrate(model, [batch_of(model)])
    message = r'neck\.deconv_layers\.1\.conv: a QuantConvTranspose2d has no integer form'
    with pytest.raises(NotImplementedError, match=message):
        lower_detector(model, [torch.zeros(1, 3, 64, 64)], allow_float=allow_float)
