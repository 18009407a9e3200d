"""What a user can get wrong in a run: each is an error that says where and what to do."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmaqd.checkpoints import CheckpointError
from mmaqd.quantizers import CheckpointMismatchError, UninitializedIntervalError
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import DETECTORS, build, build_calibrated, loss, make_batch, model_cfg
from tests.helpers.runs import make_runner, train


@pytest.fixture
def data(tmp_path) -> Path:
    return make_coco(tmp_path / 'data')


@pytest.fixture
def cfg(data, tmp_path) -> Config:
    """A 4-bit run; tests spoil a part of it."""
    return run_cfg(data, tmp_path / 'work', bits=4)


class TestQuantization:
    """The block ``model.quantization`` of a config."""

    @pytest.mark.parametrize('role, bits', [('weight', 0), ('weight', 9), ('weight', '4'),
                                            ('weight', 4.0), ('weight', True), ('input', 0),
                                            ('input', 1), ('input', 9), ('input', '4'),
                                            ('input', None)])
    def test_bit_width(self, cfg, role, bits):
        cfg.model.quantization[f'{role}_quantizer'].bit_width = bits
        first = dict(
            weight=r'backbone\.layer1\.0\.conv1: LIQWeightQuantizer.* 1',
            input=r'backbone\.layer1\.0\.conv1: LIQActivationQuantizer.* 2')[role]
        with pytest.raises(ValueError, match=f'^{first} to 8, but got {bits!r}'):
            build(cfg.model)

    def test_one_bit_is_for_weights_only(self, cfg):
        cfg.model.quantization.weight_quantizer.bit_width = 1
        assert build(cfg.model).neck.fpn_convs[0].conv.weight_quantizer.bit_width == 1

    def test_rule_without_a_match(self, cfg):
        cfg.model.quantization.rules[0].pattern = 'backbone.stem'
        with pytest.raises(
                ValueError,
                match=r"'backbone\.stem' matches no module.*These can: "
                r'backbone\.conv1, '):
            build(cfg.model)

    def test_unknown_key_of_a_quantizer(self, cfg):
        cfg.model.quantization.input_quantizer.bits = 4
        with pytest.raises(
                TypeError,
                match=r'backbone\.layer1.*unknown key\(s\) bits; it knows '
                'bit_width, start'):
            build(cfg.model)

    def test_unknown_type_of_a_quantizer(self, cfg):
        cfg.model.quantization.input_quantizer.type = 'mmaqd.LearnedQuantizer'
        with pytest.raises(KeyError, match=r'mmaqd\.LIQActivationQuantizer.*LearnedQuantizer'):
            build(cfg.model)

    def test_number_of_levels_is_not_that_of_the_neck(self, cfg):
        cfg.model.bbox_head.norm_cfg.num_levels = 4
        with pytest.raises(
                ValueError,
                match='num_levels=4, but the head got 5 feature maps.*'
                'num_outs of the neck'):
            train(cfg)


class TestIntervals:
    """Their start."""

    @pytest.mark.parametrize('with_float_checkpoint', [True, False])
    def test_evaluating_a_model_without_intervals(self, cfg, with_float_checkpoint, tmp_path):
        if with_float_checkpoint:
            cfg.load_from = str(tmp_path / 'float.pth')
            torch.save(dict(state_dict=build(model_cfg('RetinaNet')).state_dict()), cfg.load_from)
        with pytest.raises(
                UninitializedIntervalError,
                match=r'^backbone\.conv1\.weight_quantizer: '
                'the interval was never initialized.*InitializeIntervalsHook'):
            make_runner(cfg).test()

    def test_training_without_the_hook(self, cfg):
        cfg.custom_hooks = []
        with pytest.raises(UninitializedIntervalError, match=r'^backbone\.conv1\.weight_quantizer'):
            train(cfg)

    @pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS'])
    def test_negative_input_at_unsigned_codes(self, cfg, detector):
        cfg.model = model_cfg(detector, 4)
        cfg.model.neck.act_cfg = None  # as upstream: no ReLU behind the FPN's convs
        with pytest.raises(
                ValueError,
                match=r'^neck\.fpn_convs\.\d\.conv\.input_quantizer: .*'
                r'must not be negative.*act_cfg=dict\(type=.ReLU'):
            train(cfg)


class TestCheckpoint:
    """``load_from`` of a run."""

    def save(self, cfg: Config, model: torch.nn.Module) -> None:
        cfg.load_from = str(Path(cfg.work_dir).parent / 'given.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), cfg.load_from)

    @pytest.mark.parametrize(
        'start', [train, lambda cfg: make_runner(cfg).test()], ids=['train', 'test'])
    def test_other_bits(self, cfg, start):
        self.save(cfg, build(model_cfg('RetinaNet', 2)))
        with pytest.raises(
                CheckpointMismatchError,
                match=r'^backbone\..*_quantizer: the '
                'checkpoint holds a quantizer of 2 bits, the model has one of 4 bits'):
            start(cfg)

    def test_another_detector(self, cfg):
        self.save(cfg, build(model_cfg('FCOS', 4)))
        with pytest.raises(CheckpointMismatchError, match='does not belong to this RetinaNet'):
            train(cfg)

    @pytest.mark.parametrize('size, message', [
        pytest.param(0, r'is empty \(0 bytes\)', id='empty'),
        pytest.param(5000, r'\(5000 bytes\) is cut off', id='truncated'),
    ])
    def test_damaged_file(self, cfg, size, message):
        self.save(cfg, build(model_cfg('RetinaNet', 4)))
        path = Path(cfg.load_from)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match=f'given.pth.*{message}'):
            train(cfg)

    def test_missing_file(self, cfg):
        cfg.load_from = 'no/such/file.pth'
        with pytest.raises(FileNotFoundError, match='no/such/file.pth.*does not exist'):
            train(cfg)


class TestData:
    """Annotations and images."""

    @pytest.mark.parametrize('content', [
        pytest.param(b'this is no picture', id='text'),
        pytest.param(
            b'',
            id='empty',
            marks=pytest.mark.xfail(
                strict=True, reason='OpenCV raises before mmcv could name the file')),
        pytest.param(b'\x89PNG\r\n\x1a\n' + bytes(40), id='broken-png'),
    ])
    def test_image_that_cannot_be_decoded(self, cfg, data, content):
        (data / 'images' / '1.png').write_bytes(content)
        with pytest.raises(Exception, match=r'images/1\.png'):
            train(cfg)

    def test_image_that_a_worker_cannot_decode(self, cfg, data):
        (data / 'images' / '1.png').write_bytes(b'this is no picture')
        cfg.train_dataloader.num_workers = 1
        with pytest.raises(Exception, match=r'images/1\.png'):
            train(cfg)

    def test_missing_image(self, cfg, data):
        (data / 'images' / '1.png').unlink()
        with pytest.raises(FileNotFoundError, match=r'images/1\.png'):
            train(cfg)

    def test_missing_annotation_file(self, cfg, data):
        cfg.train_dataloader.dataset.ann_file = 'train.json'
        with pytest.raises(FileNotFoundError, match='train.json'):
            train(cfg)

    @pytest.mark.parametrize('detector', DETECTORS)
    def test_a_batch_without_a_box_just_trains(self, detector):
        model = build_calibrated(detector).train()
        total = loss(model, make_batch(boxes=False))
        total.backward()
        assert torch.isfinite(total) and total > 0
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert grads and all(torch.isfinite(grad).all() for grad in grads)
