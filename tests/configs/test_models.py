"""The models of the configs: bits of every conv, one training step, one prediction."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmaqd.conversion import quantization_table
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PREDICTIONS = dict(
    retinanet={'retina_cls', 'retina_reg'},
    fcos={'conv_cls', 'conv_reg', 'conv_centerness'},
    atss={'atss_cls', 'atss_reg', 'atss_centerness'})
FAMILIES = [(detector, 18, bits) for detector in PREDICTIONS for bits in (None, 4)]
LOW_BIT = [(detector, depth, bits) for detector in ('retinanet', 'fcos') for depth in (18, 34, 50)
           for bits in (2, 3, 4, 8)] + [('atss', 18, 4)]


def build(detector: str, depth: int, bits: int | None, checkpoint: str | None = None) -> nn.Module:
    """Build the model of a config; a float one can start its backbone from a checkpoint."""
    suffix = '' if bits is None else f'-w{bits}a{bits}'
    config = Config.fromfile(CONFIGS / detector /
                             f'{detector}_r{depth}_fpn_mlbn{suffix}_1x_coco.py')
    if checkpoint is None:
        config.model.backbone.init_cfg = None
    else:
        config.model.backbone.init_cfg.checkpoint = checkpoint
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(config.model)


@lru_cache(maxsize=None)
def build_meta(detector: str, depth: int, bits: int | None) -> nn.Module:
    """Everything but the values of the parameters."""
    with torch.device('meta'):
        return build(detector, depth, bits)


def make_batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[_sample(), _sample()])


def _sample() -> DetDataSample:
    sample = DetDataSample(
        metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_id=0))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[4., 6., 30., 40.], [20., 20., 60., 62.]]),
        labels=torch.tensor([0, 2]))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
    return sample


@pytest.mark.parametrize('detector, depth, bits', LOW_BIT)
def test_every_conv_has_the_bits_of_the_name(detector, depth, bits):
    rows = {row.module: row for row in quantization_table(build_meta(detector, depth, bits))}
    expected = dict.fromkeys(rows, (bits, bits))
    expected['backbone.conv1'] = (8, 32)
    expected.update((f'bbox_head.{name}', (8, 8)) for name in PREDICTIONS[detector])
    assert {name: (row.weight_bits, row.input_bits) for name, row in rows.items()} == expected
    assert {row.granularity for row in rows.values()} == {'per_tensor'}


@pytest.mark.parametrize('detector, depth, bits', LOW_BIT)
def test_weights_are_normalized_where_bn_follows(detector, depth, bits):
    model = build_meta(detector, depth, bits)
    normalized = {
        row.module: model.get_submodule(row.module).weight_quantizer.kernel.normalize
        for row in quantization_table(model)
    }
    plain = {'backbone.conv1'} | {f'bbox_head.{name}' for name in PREDICTIONS[detector]}
    assert {name for name, flag in normalized.items() if not flag} == plain


@pytest.mark.parametrize('detector, depth, bits', LOW_BIT)
def test_float_checkpoint_fits_the_low_bit_model(detector, depth, bits):
    own = build_meta(detector, depth, bits).state_dict()
    twin = build_meta(detector, depth, None).state_dict()
    assert {key: own[key].shape for key in twin} == {key: v.shape for key, v in twin.items()}
    assert all('_quantizer.' in key for key in own.keys() - twin.keys())


@pytest.mark.parametrize('detector, depth, bits', FAMILIES)
def test_only_prediction_convs_have_a_bias_and_every_norm_trains(detector, depth, bits):
    model = build_meta(detector, depth, bits).train()
    biased = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None
    }
    assert biased == {f'bbox_head.{name}' for name in PREDICTIONS[detector]}
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    assert norms and all(norm.training for norm in norms)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize('detector', PREDICTIONS)
def test_imagenet_checkpoint_starts_the_backbone(detector, tmp_path):
    torch.manual_seed(0)
    given = build(detector, 18, None).backbone.state_dict()
    given['bn1.running_mean'].normal_()
    given['bn1.running_var'].uniform_(0.5, 2)
    path = str(tmp_path / 'imagenet.pth')
    torch.save({**given, 'fc.weight': torch.zeros(1000, 512), 'fc.bias': torch.zeros(1000)}, path)
    backbone = build(detector, 18, None, path).backbone
    backbone.init_weights()
    assert torch.equal(backbone.layer4[1].conv2.weight, given['layer4.1.conv2.weight'])
    # Undivided images in conv1 and its BN must give what divided images gave before.
    images = torch.rand(2, 3, 16, 16) * 255
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    before = nn.functional.conv2d(images / std, given['conv1.weight'], stride=2, padding=3)
    after = nn.functional.conv2d(images, backbone.conv1.weight, stride=2, padding=3)
    torch.testing.assert_close(
        _stem_norm(backbone.state_dict(), after), _stem_norm(given, before), rtol=1e-4, atol=1e-4)


def _stem_norm(state: dict, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (
        state[f'bn1.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
    return nn.functional.batch_norm(x, mean, var, weight, bias)


@pytest.mark.parametrize('detector, depth, bits', FAMILIES)
def test_one_training_step_and_one_prediction(detector, depth, bits):
    torch.manual_seed(0)
    model = build(detector, depth, bits)
    model.init_weights()
    if bits is not None:
        assert calibrate(model, [make_batch()]) > 0
    _check_training_step(model)
    predictions = model.eval().test_step(make_batch())
    assert len(predictions) == 2
    for prediction in predictions:
        assert prediction.pred_instances.bboxes.shape[1:] == (4, )
        assert torch.isfinite(prediction.pred_instances.bboxes).all()


def _check_training_step(model: nn.Module) -> None:
    data = model.train().data_preprocessor(make_batch(), training=True)
    assert torch.equal(data['inputs'], data['inputs'].round()), 'the first conv must see integers'
    total, losses = model.parse_losses(model(**data, mode='loss'))
    assert torch.isfinite(total) and total > 0
    total.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
