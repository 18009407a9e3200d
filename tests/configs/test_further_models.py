"""The models of the further heads: bits of every layer, one training step, one prediction."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from torch import nn

from mmaqd.conversion import quantization_table
from mmaqd.layers import MultiLevelBN
from mmaqd.quantizers import calibrate
from mmaqd.registry import MODELS

from .test_models import make_batch

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RTMDET = {f'rtm_{kind}.{level}' for kind in ('cls', 'reg') for level in range(3)}
YOLOX = {f'multi_level_conv_{kind}.{i}' for kind in ('cls', 'reg', 'obj') for i in range(3)}


@dataclass(frozen=True)
class Exceptions:
    """Where a detector differs from 'all layers at the bits of the name, behind BN'.

    Names of ``predictions``, ``in_float`` and ``without_norm`` are those of layers in the head.
    """

    predictions: frozenset
    first: str = 'backbone.conv1'
    in_float: frozenset = frozenset()
    without_norm: frozenset = frozenset()


def exceptions(*predictions: str, **others) -> Exceptions:
    return Exceptions(frozenset(predictions), **others)


TASKS = frozenset({
    *(f'{task}_decomp.layer_attention.{i}' for task in ('cls', 'reg') for i in (0, 2)),
    'cls_prob_module.0', 'reg_offset_module.0'
})
EXCEPTIONS = dict(
    atss=exceptions('atss_cls', 'atss_reg', 'atss_centerness'),
    paa=exceptions('atss_cls', 'atss_reg', 'atss_centerness'),
    gfl=exceptions('gfl_cls', 'gfl_reg'),
    fovea=exceptions('conv_cls', 'conv_reg'),
    vfnet=exceptions(
        'vfnet_cls',
        'vfnet_reg',
        'vfnet_reg_refine',
        without_norm=frozenset({'vfnet_cls_dconv', 'vfnet_reg_refine_dconv'})),
    tood=exceptions(
        'tood_cls',
        'tood_reg',
        'cls_prob_module.2',
        'reg_offset_module.2',
        in_float=frozenset({'cls_decomp.reduction_conv.conv', 'reg_decomp.reduction_conv.conv'}),
        without_norm=TASKS),
    rtmdet=exceptions(*RTMDET, first='backbone.stem.0.conv'),
    rtmdet_tiny_mlbn=exceptions('rtm_cls', 'rtm_reg', first='backbone.stem.0.conv'),
    rtmdet_tiny_bn=exceptions('rtm_cls', 'rtm_reg', first='backbone.stem.0.conv'),
    yolox=exceptions(*YOLOX, first='backbone.stem.conv.conv'))
FOLDERS = ('gfl', 'vfnet', 'tood', 'paa', 'foveabox', 'rtmdet', 'yolox')
BCCD = [
    path.relative_to(CONFIGS).as_posix() for head in ('atss', 'gfl', 'rtmdet', 'yolox')
    for path in sorted(CONFIGS.glob(f'bccd/{head}_*.py'))
]
EVERY = [
    path.relative_to(CONFIGS).as_posix() for folder in FOLDERS
    for path in sorted(CONFIGS.glob(f'{folder}/*.py'))
] + BCCD
LOW_BIT = [name for name in EVERY if '-w' in name]
SIGNED = [name for name in LOW_BIT if '_tiny' in name]


def of(name: str) -> Exceptions:
    """What is special about the detector of a config."""
    stem = Path(name).stem
    return EXCEPTIONS.get(stem.split('-w')[0].split('_1xb')[0], EXCEPTIONS[stem.split('_')[0]])


def bits_of(name: str) -> int:
    return int(name.split('-w')[1][0])


def build(name: str) -> nn.Module:
    config = Config.fromfile(CONFIGS / name)
    config.model.backbone.init_cfg = None
    config.model.data_preprocessor.batch_augments = None  # needs a training loop
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(config.model)


@lru_cache(maxsize=None)
def build_meta(name: str) -> nn.Module:
    """Everything but the values of the parameters, where upstream allows that."""
    with torch.device('cpu' if 'vfnet' in name else 'meta'):
        return build(name)


def in_head(names: frozenset) -> set[str]:
    return {f'bbox_head.{name}' for name in names}


@pytest.mark.slow
@pytest.mark.parametrize('name', LOW_BIT)
def test_every_layer_has_the_bits_of_the_name(name):
    own, bits = of(name), bits_of(name)
    rows = {row.module: row for row in quantization_table(build_meta(name))}
    expected = dict.fromkeys(rows, (bits, bits))
    assert build_meta(name).get_submodule(own.first).input_quantizer is None
    expected[own.first] = (8, rows[own.first].input_bits)  # those of the image, where known
    expected.update(dict.fromkeys(in_head(own.predictions), (8, 8)))
    expected.update(dict.fromkeys(in_head(own.in_float), (32, 32)))
    assert {name: (row.weight_bits, row.input_bits) for name, row in rows.items()} == expected


@pytest.mark.parametrize('name', LOW_BIT)
def test_weights_are_normalized_where_bn_follows(name):
    own, model = of(name), build_meta(name)
    normalized = {
        row.module: model.get_submodule(row.module).weight_quantizer.kernel.normalize
        for row in quantization_table(model) if row.weight_bits < 32
    }
    plain = {name for name, flag in normalized.items() if not flag}
    attention = {name for name in plain if '.attention.' in name}  # CSPNeXt's has a bias and no BN
    assert plain - attention == {own.first} | in_head(own.predictions | own.without_norm)


@pytest.mark.slow
@pytest.mark.parametrize('name', LOW_BIT)
def test_the_float_twin_starts_it(name):
    twin = Path(Config.fromfile(CONFIGS / name).load_from).parent.name
    given = build(f'{Path(name).parent}/{twin}.py').state_dict()
    model = build(name)
    model.load_state_dict(given)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in given.items())
    assert all('_quantizer.' in key for key in state.keys() - given.keys())
    model.load_state_dict(state)


@pytest.mark.parametrize('name', SIGNED)
def test_inputs_behind_silu_can_be_negative(name):
    quantizers = {
        type(module.input_quantizer).__name__: module.input_quantizer
        for module in build_meta(name).modules()
        if getattr(module, 'input_quantizer', None) is not None
    }
    assert all(quantizer.kernel.takes_negative for quantizer in quantizers.values())
    method, = quantizers
    assert method == ('LIQActivationQuantizer'
                      if bits_of(name) == 8 else 'LSQPlusActivationQuantizer')


@pytest.mark.parametrize('name', [name for name in EVERY if '_mlbn' in name])
def test_every_bn_of_the_head_has_the_levels_of_the_neck(name):
    head = build_meta(name).bbox_head
    levels = {module.num_levels for module in head.modules() if isinstance(module, MultiLevelBN)}
    assert levels == {3 if '_tiny' in name else 5}
    inside = sum(m.num_levels for m in head.modules() if isinstance(m, MultiLevelBN))
    norms = [m for m in head.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == inside


@pytest.mark.slow
@pytest.mark.parametrize('name', EVERY)
def test_one_training_step_and_one_prediction(name):
    if '/paa_' in name:
        pytest.importorskip('sklearn', reason="PAA's loss fits Gaussians with scikit-learn")
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD asks for it
    torch.manual_seed(0)
    model = build(name)
    model.init_weights()
    if '-w' in name:
        assert calibrate(model, [make_batch()], need_norms=True) > 0
    data = model.train().data_preprocessor(make_batch(), training=True)
    assert torch.equal(data['inputs'], data['inputs'].round()), 'the first conv must see integers'
    total, _ = model.parse_losses(model(**data, mode='loss'))
    assert torch.isfinite(total) and total > 0
    total.backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    for prediction in model.eval().test_step(make_batch()):
        assert prediction.pred_instances.bboxes.shape[1:] == (4, )
        assert torch.isfinite(prediction.pred_instances.bboxes).all()


def test_a_published_rtmdet_is_folded_into_the_float_model(tmp_path):
    """The ``init_cfg`` of the README."""
    name = 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
    torch.manual_seed(0)
    given = build(name)
    given.backbone.stem[0].bn.running_mean.normal_()
    path = str(tmp_path / 'published.pth')
    torch.save(dict(state_dict=given.state_dict()), path)
    config = Config.fromfile(CONFIGS / name)
    config.model.backbone.init_cfg = None
    readme = (CONFIGS / 'rtmdet/README.md').read_text()
    code = readme.split('```python\n')[1].split('```')[0]
    lines: dict = {}
    exec('\n'.join(line[2:] for line in code.replace('URL', path).splitlines()), lines)
    config.merge_from_dict(dict(model=lines['model']))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        folded = MODELS.build(config.model)
    folded.init_weights()
    images = torch.rand(1, 3, 32, 32) * 255
    std = torch.tensor([57.375, 57.12, 58.395]).view(3, 1, 1)
    before, after = (m.eval().backbone.stem[0](x)
                     for m, x in [(given, images / std), (folded, images)])
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert torch.equal(folded.bbox_head.rtm_cls[1].weight, given.bbox_head.rtm_cls[1].weight)
