"""Configs that are written from those of upstream detectors, shrunk to run in seconds."""
from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn

from mmaqd.conversion import quantization_table
from mmaqd.conversion.automatic import (QuantizedConfig, as_in_training, build_without_download,
                                        has_masks, quantize_config, random_batch)
from mmaqd.engine import launch
from mmaqd.quantizers import Quantizer, calibrate
from tests.helpers.data import make_coco, run_cfg

_THIN = {'model.backbone.base_channels': 8}
_BASIC = {**_THIN, 'model.backbone.depth': 18}
_FPN = {'model.neck.out_channels': 16}
_ONE_STAGE = {
    **_BASIC,
    **_FPN, 'model.neck.in_channels': [8, 16, 32, 64],
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16
}
_DARKNET = {'model.backbone.widen_factor': 0.125, 'model.backbone.deepen_factor': 0.17}
#: Config and options by detector.
DETECTORS = {
    'RetinaNet': ('retinanet/retinanet_r18_fpn_1x_coco.py', _ONE_STAGE),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco.py', {
        **_ONE_STAGE, 'model.bbox_head.norm_cfg':
        dict(type='GN', num_groups=4, requires_grad=True)
    }),
    'YOLOX': ('yolox/yolox_tiny_8xb8-300e_coco.py', {
        **_DARKNET, 'model.neck.in_channels': [32, 64, 128],
        'model.neck.out_channels': 16,
        'model.bbox_head.in_channels': 16,
        'model.bbox_head.feat_channels': 16
    }),
    'RTMDet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', {
        **_DARKNET, 'model.neck.in_channels': [32, 64, 128],
        'model.neck.out_channels': 16,
        'model.bbox_head.in_channels': 16,
        'model.bbox_head.feat_channels': 16
    }),
    'FasterRCNN': ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', {
        **_BASIC,
        **_FPN, 'model.neck.in_channels': [8, 16, 32, 64],
        'model.rpn_head.in_channels': 16,
        'model.rpn_head.feat_channels': 16,
        'model.roi_head.bbox_roi_extractor.out_channels': 16,
        'model.roi_head.bbox_head.in_channels': 16,
        'model.roi_head.bbox_head.fc_out_channels': 32
    }),
    'DETR': ('detr/detr_r50_8xb2-150e_coco.py', {
        **_BASIC, 'model.neck.in_channels': [64],
        'model.encoder.num_layers': 1,
        'model.decoder.num_layers': 1
    }),
}
#: What predicts there, and what takes the image.
ENDS = {
    'RetinaNet': ({'bbox_head.retina_cls', 'bbox_head.retina_reg'}, 'backbone.conv1'),
    'GFL': ({'bbox_head.gfl_cls', 'bbox_head.gfl_reg'}, 'backbone.conv1'),
    'YOLOX': ({
        f'bbox_head.multi_level_conv_{kind}.{level}'
        for kind in ('cls', 'reg', 'obj')
        for level in range(3)
    }, 'backbone.stem.conv.conv'),
    'RTMDet': ({f'bbox_head.rtm_{kind}.{level}'
                for kind in ('cls', 'reg')
                for level in range(3)}, 'backbone.stem.0.conv'),
    'FasterRCNN': ({
        'rpn_head.rpn_cls', 'rpn_head.rpn_reg', 'roi_head.bbox_head.fc_cls',
        'roi_head.bbox_head.fc_reg'
    }, 'backbone.conv1'),
    'DETR': ({'bbox_head.fc_cls', 'bbox_head.fc_reg'}, 'backbone.conv1'),
}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Gives the result for a detector, made once."""
    known: dict[tuple, QuantizedConfig] = {}

    def make(name: str, **options) -> QuantizedConfig:
        key = name, str(options)
        if key not in known:
            config, shrunk = DETECTORS[name]
            out = tmp_path_factory.mktemp('written') / f'{name}.py'
            known[key] = quantize_config(config, str(out), cfg_options=shrunk, **options)
        return known[key]

    return make


def build(result: QuantizedConfig, seed: int = 7) -> tuple[nn.Module, dict]:
    cfg = Config.fromfile(result.path)
    torch.manual_seed(seed)
    classes = cfg.model.get('bbox_head', {}).get('num_classes', 80)
    batch = random_batch(result.shape[0], num_classes=classes, seed=seed, with_masks=has_masks(cfg))
    return build_without_download(cfg.model), batch


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_other_weights_and_images_calibrate_and_train(written, name):
    model, batch = build(written(name))
    with as_in_training():
        assert calibrate(model, [batch], need_norms=True) > 10
        data = model.train().data_preprocessor(batch, training=False)
        total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    learned = {
        f'{key}.{part}': parameter.grad
        for key, module in model.named_modules() if isinstance(module, Quantizer)
        for part, parameter in module.named_parameters() if parameter.requires_grad
    }
    assert learned and not [key for key, grad in learned.items() if grad is None]
    assert all(torch.isfinite(grad).all() for grad in learned.values())
    with torch.no_grad():
        assert len(model.eval()(**data, mode='predict')) == 2


@pytest.mark.parametrize('name', DETECTORS)
def test_first_and_last_get_eight_bits_and_the_rest_four(written, name):
    predicting, first = ENDS[name]
    for row in written(name).rows:
        expected = {8, 32} if row.module in predicting | {first} else {4, 32}
        assert {row.weight_bits, row.input_bits} <= expected, row.module
    assert written(name).macs_by_bits[4] > 0
    assert sum(written(name).macs_by_bits.values()) == pytest.approx(1)


@pytest.mark.parametrize('name', ['RetinaNet', 'GFL', 'YOLOX', 'RTMDet'])
def test_of_convs_nothing_stays_in_float(written, name):
    assert {row.weight_bits for row in written(name).rows} == {4, 8}
    assert set(written(name).macs_by_bits) == {4, 8}


@pytest.mark.parametrize('name, flags', [
    ('RetinaNet', dict(normalize=False)),
    ('YOLOX', dict(signed=True)),
    ('RTMDet', dict(signed=True)),
])
def test_what_holds_for_most_layers_is_the_default(written, name, flags):
    block = Config.fromfile(written(name).path).model.quantization
    defaults = {**block.weight_quantizer, **block.input_quantizer}
    assert flags.items() <= defaults.items()


def test_the_file_says_what_was_planned(written):
    result = written('FasterRCNN')
    cfg = Config.fromfile(result.path)
    block = {k: v for k, v in cfg.model.quantization.to_dict().items() if k != '_scope_'}
    assert block == result.plan.block
    assert cfg.model.type == 'mmaqd.QuantizedDetector' and cfg.model.detector == 'FasterRCNN'
    assert cfg.custom_hooks[-1].type == 'mmaqd.InitializeIntervalsHook'
    assert cfg.model.backbone.base_channels == 8 and cfg.model.neck.out_channels == 16
    assert len(Path(result.path).read_text().splitlines()) < 80


def test_hooks_of_the_upstream_config_are_kept(written):
    hooks = [hook.type for hook in Config.fromfile(written('YOLOX').path).custom_hooks]
    assert hooks == [
        'YOLOXModeSwitchHook', 'SyncNormHook', 'EMAHook', 'mmaqd.InitializeIntervalsHook'
    ]
    assert '# EMAHook averages the intervals' in Path(written('YOLOX').path).read_text()


@pytest.mark.slow
@pytest.mark.parametrize('method', ['lsq', 'lsqplus'])
@pytest.mark.parametrize('bits', [2, 8])
def test_other_methods_and_bits(written, method, bits):
    result = written('RetinaNet', method=method, bits=bits)
    model, batch = build(result)
    assert calibrate(model, [batch], need_norms=True) > 0
    assert {row.weight_bits for row in quantization_table(model)} == {bits, 8}


def test_the_summary_says_what_was_decided(written):
    text = written('RetinaNet').summary
    assert 'Multiply-accumulates at 128 x 128 pixels: 4 bits' in text
    assert '2 predictions' in text and 'BN layers are frozen' in text
    assert f'mmaqd train {written("RetinaNet").path}' in text


def test_the_same_config_is_written_again(written, tmp_path):
    again = tmp_path / 'RetinaNet.py'
    config, options = DETECTORS['RetinaNet']
    quantize_config(config, str(again), cfg_options=options)
    assert again.read_text() == Path(written('RetinaNet').path).read_text()


def test_the_written_config_trains_as_it_is(tmp_path):
    data = make_coco(tmp_path / 'data')
    twin = tmp_path / 'float.py'
    run_cfg(data, tmp_path / 'work').dump(twin)
    low = tmp_path / 'low.py'
    result = quantize_config(str(twin), str(low), real_images=True)
    assert not result.frozen_norms and f"_base_ = '{twin}'" in low.read_text()
    runner = launch.train(str(low), work_dir=str(tmp_path / 'low'))
    assert runner.iter == 2
    quantizers = [each for each in runner.model.modules() if isinstance(each, Quantizer)]
    assert quantizers and all(bool(each.initialized) for each in quantizers)
    assert list((tmp_path / 'low').glob('*.pth'))


def test_a_relative_path_is_inherited_from_another_folder(tmp_path, monkeypatch):
    for folder in ('twins', 'low'):
        (tmp_path / folder).mkdir()
    run_cfg(tmp_path, tmp_path / 'work').dump(tmp_path / 'twins/float.py')
    monkeypatch.chdir(tmp_path)
    assert quantize_config('twins/float.py', 'low/w4a4.py').path == 'low/w4a4.py'
    assert "_base_ = '../twins/float.py'" in Path('low/w4a4.py').read_text()


def test_an_option_within_a_list_and_imports_of_the_config_are_kept(tmp_path):
    cfg = run_cfg(tmp_path, tmp_path / 'work')
    cfg.custom_imports = dict(imports=['json', 'mmaqd'], allow_failed_imports=False)
    cfg.dump(tmp_path / 'float.py')
    out = tmp_path / 'low.py'
    options = {
        'train_dataloader.dataset.pipeline.1.scale': (32, 32),
        'model.bbox_head.num_classes': 2,
        'custom_hooks.0.seed_all': True
    }
    quantize_config(str(tmp_path / 'float.py'), str(out), cfg_options=options)
    new = Config.fromfile(out)
    assert new.train_dataloader.dataset.pipeline[1].scale == (32, 32)
    assert len(new.train_dataloader.dataset.pipeline) == 4 and new.train_dataloader.batch_size == 2
    assert new.model.bbox_head.num_classes == 2 and new.model.neck.type == 'FPN'
    assert new.custom_imports.imports == ['json', 'mmaqd']
    assert [hook.type for hook in new.custom_hooks
            ] == ['mmaqd.EpochSeedHook', 'mmaqd.InitializeIntervalsHook']
    assert new.custom_hooks[0].seed_all


class TestMistakes:

    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        """What is refused is refused before anything is built."""
        module = 'mmaqd.conversion.automatic.quantize'
        monkeypatch.setattr(f'{module}._look', lambda *_: pytest.fail('it was run'))

    @pytest.mark.parametrize('bits', [1, 9, 4.0, True])
    def test_bits_out_of_range(self, tmp_path, bits):
        with pytest.raises(ValueError, match='--bits: bit_width must be an integer from 2 to 8'):
            quantize_config(DETECTORS['RetinaNet'][0], str(tmp_path / 'low.py'), bits=bits)

    def test_no_such_method(self, tmp_path):
        with pytest.raises(ValueError, match="one of liq, lsq, lsqplus, but got 'pact'"):
            quantize_config(DETECTORS['RetinaNet'][0], str(tmp_path / 'low.py'), method='pact')

    @pytest.mark.parametrize('out, message', [
        ('no_folder/low.py', 'is no folder that can be written to'),
        ('low.pth', r'ends in \.py'),
        ('.', r'ends in \.py'),
    ])
    def test_a_place_that_can_not_be_written(self, tmp_path, out, message):
        with pytest.raises(ValueError, match=message):
            quantize_config('no_such_config.py', str(tmp_path / out))

    def test_a_file_that_is_there(self, tmp_path):
        (tmp_path / 'low.py').write_text('mine')
        with pytest.raises(FileExistsError, match='--overwrite'):
            quantize_config(DETECTORS['RetinaNet'][0], str(tmp_path / 'low.py'))
        assert (tmp_path / 'low.py').read_text() == 'mine'

    def test_the_config_itself(self, tmp_path):
        path = tmp_path / 'float.py'
        path.write_text("model = dict(type='RetinaNet')")
        with pytest.raises(ValueError, match='is the config that is to be quantized'):
            quantize_config(str(path), str(path), overwrite=True)

    def test_a_written_config_is_quantized_already(self, written, tmp_path):
        with pytest.raises(ValueError, match='is quantized already'):
            quantize_config(written('RetinaNet').path, str(tmp_path / 'low.py'))

    def test_a_detector_that_can_not_be_built(self, tmp_path):
        with pytest.raises(RuntimeError, match='can not be built.*AssertionError|KeyError|depth'):
            quantize_config(
                DETECTORS['RetinaNet'][0],
                str(tmp_path / 'low.py'),
                cfg_options={'model.backbone.depth': 19})


def test_a_detector_that_does_not_run(tmp_path):
    options = {**_ONE_STAGE, 'model.bbox_head.in_channels': 17}
    with pytest.raises(RuntimeError, match='does not run on random images.*expected input'):
        quantize_config(
            DETECTORS['RetinaNet'][0], str(tmp_path / 'low.py'), cfg_options=options, size=64)
    assert not (tmp_path / 'low.py').exists()


def test_what_says_the_iteration_is_taken_back():
    hub = MessageHub.get_current_instance()
    before = dict(hub.runtime_info)
    with as_in_training():
        assert hub.get_info('epoch') is not None
    assert dict(hub.runtime_info) == before


def test_what_is_written_is_plain_python(written):
    assert runpy.run_path(written('GFL').path)['model']['detector'] == 'GFL'
