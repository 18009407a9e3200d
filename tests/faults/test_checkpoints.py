"""Files that come from anywhere: nothing in them runs, and each that is not right says so."""
from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import nn

from mmaqd.checkpoints import CheckpointError, CheckpointMismatchError, load_from_local, reading
from tests.helpers.checkpoints import resume, saved
from tests.helpers.detector import build, build_calibrated, model_cfg
from tests.helpers.runs import make_runner, train

INNER = 'backbone.layer1.0.conv1'


class Call:
    """What a crafted file holds: unpickling it would call a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture
def marker(tmp_path) -> Path:
    """A file that is there if something was run."""
    return tmp_path / 'marker'


class TestNothingIsRun:

    def ways(self, cfg: Config, given: str) -> dict:
        """Every way in, by name; each loads the file ``given``."""
        student = dict(model_cfg('RetinaNet', 4))
        student['distillation'] = dict(
            checkpoint=given, losses=[dict(type='mmaqd.OutputDistillationLoss')])
        return dict(
            load_from=lambda: train(cfg, load_from=given),
            test=lambda: make_runner(cfg, load_from=given).test(),
            resume=lambda: resume(cfg, given),
            teacher=lambda: build(student).distiller.build_teacher(),
            init_detector=lambda: init_detector(cfg, given, device='cpu', palette='random'),
            inferencer=lambda: DetInferencer(cfg, given, device='cpu', palette='random'),
            pretrained=lambda: build(
                dict(model_cfg(), init_cfg=dict(type='Pretrained', checkpoint=given))).init_weights(
                ))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        'way',
        ['load_from', 'test', 'resume', 'teacher', 'init_detector', 'inferencer', 'pretrained'])
    @pytest.mark.parametrize('by_url', [False, True], ids=['file', 'url'])
    def test_an_object_that_calls_a_function(self, cfg, checkpoint, marker, tmp_path, monkeypatch,
                                             way, by_url):
        checkpoint['meta']['more'] = Call(Path.touch, marker)
        given = saved(checkpoint, tmp_path / 'given.pth')
        if by_url:
            monkeypatch.setattr(
                'mmaqd.checkpoints.loaders.download_url_to_file',
                lambda url, path, progress: Path(path).write_bytes(Path(given).read_bytes()))
            monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        with pytest.raises(CheckpointError, match='given.pth.*holds more than weights'):
            self.ways(cfg, 'https://no.such/given.pth' if by_url else given)[way]()
        assert not marker.exists()

    @pytest.mark.parametrize('scheme', [
        'torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls', 's3', 'petrel', 'x:s3',
        'pavi'
    ])
    def test_no_loader_of_mmengine_is_left(self, scheme):
        from mmengine.runner.checkpoint import CheckpointLoader
        loader = CheckpointLoader._get_checkpoint_loader(f'{scheme}://a')
        assert loader.__module__ == 'mmaqd.checkpoints.loaders'

    def test_text_that_resuming_would_run(self, cfg, checkpoint, marker, tmp_path):
        text = f'open({str(marker)!r}, "w")\ngpu_ids = [0]\n'
        checkpoint['meta'].update(config=text, cfg=text)
        checkpoint['message_hub']['runtime_info']['cfg'] = text
        runner = resume(cfg, saved(checkpoint, tmp_path / 'given.pth'))
        assert runner.epoch == 2 and not marker.exists()

    @pytest.mark.parametrize('place', ['meta', 'message_hub', 'both'])
    @pytest.mark.parametrize('text', [
        'open({marker!r}, "w")', 'a = 1\r__import__("pathlib").Path({marker!r}).touch()',
        '# -*- coding: utf-7 -*-\n+AG8AcABlAG4({marker!r}, "w")', '_base_ = {other!r}',
        "x = 1\x0copen({marker!r}, 'w')"
    ])
    def test_text_that_an_inferencer_would_run(self, checkpoint, marker, tmp_path, place, text):
        other = tmp_path / 'other.py'
        other.write_text(f'open({str(marker)!r}, "w")')
        text = text.format(marker=str(marker), other=str(other))
        for part in (checkpoint['meta'], checkpoint['message_hub']['runtime_info']):
            part.pop('cfg', None)
        if place != 'message_hub':
            checkpoint['meta']['cfg'] = text
        if place != 'meta':
            checkpoint['message_hub']['runtime_info']['cfg'] = text
        given = saved(checkpoint, tmp_path / 'given.pth')
        with pytest.raises((RuntimeError, ValueError), match='config'):
            DetInferencer(weights=given, device='cpu')
        assert not marker.exists()

    def test_an_inferencer_without_a_config_says_to_give_one(self, run):
        with pytest.raises(RuntimeError, match=r'DetInferencer\(model=CONFIG, weights='):
            DetInferencer(weights=str(run[1] / 'epoch_1.pth'), device='cpu')

    @pytest.mark.parametrize('new_torch', [True, False], ids=['safe-globals', 'older-torch'])
    def test_a_torchscript_archive(self, tmp_path, monkeypatch, new_torch):
        monkeypatch.setattr(reading, '_HAS_NAMED_SAFE_GLOBALS', new_torch)
        path = tmp_path / 'script.pth'
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(path))
        with pytest.raises(CheckpointError, match='TorchScript archive, which is code'):
            load_from_local(str(path))

    def test_a_folder_that_save_best_would_delete(self, cfg, checkpoint, tmp_path):
        precious = tmp_path / 'precious'
        precious.mkdir()
        info = checkpoint['message_hub']['runtime_info']
        info.update(best_ckpt=str(precious), best_score=-1.0, keep_ckpt_ids=['x/../../precious'])
        checkpoint['message_hub']['resumed_keys'].update(best_ckpt=True, best_score=True)
        cfg.default_hooks.checkpoint = dict(
            type='CheckpointHook', save_best='coco/bbox_mAP', max_keep_ckpts=1)
        resume(cfg, saved(checkpoint, tmp_path / 'given.pth'))
        assert precious.exists() and list(Path(cfg.work_dir).glob('best_*.pth'))

    @pytest.mark.slow
    def test_the_runs_own_best_is_still_replaced(self, cfg, tmp_path):
        cfg.train_cfg.val_interval = 1
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', save_best='coco/bbox_mAP')
        train(cfg, **{'train_cfg.max_epochs': 1})
        best, = Path(cfg.work_dir).glob('best_*.pth')
        content = torch.load(Path(cfg.work_dir) / 'epoch_1.pth', weights_only=False)
        assert content['message_hub']['runtime_info']['best_ckpt'] == str(best)
        content['message_hub']['runtime_info']['best_score'] = -1.0
        torch.save(content, Path(cfg.work_dir) / 'epoch_1.pth')
        resume(cfg)
        assert [path.name for path in Path(cfg.work_dir).glob('best_*.pth')
                ] == ['best_coco_bbox_mAP_epoch_2.pth']


class TestDamage:

    @pytest.fixture
    def model(self) -> nn.Module:
        return build(model_cfg('RetinaNet', 4))

    @pytest.fixture(scope='class')
    def state(self) -> dict:
        return build_calibrated('RetinaNet', 4).state_dict()

    @pytest.mark.parametrize('damage', ['bit', 'page', 'cut', 'empty'])
    @pytest.mark.parametrize('place', [0.02, 0.3, 0.6, 0.9])
    def test_of_bytes(self, model, state, tmp_path, damage, place):
        path = tmp_path / 'given.pth'
        data = bytearray(Path(saved(dict(state_dict=state), path)).read_bytes())
        at = int(place * len(data))
        if damage == 'bit':
            data[at] ^= 4
        elif damage == 'page':
            data[at:at + 4096] = bytes(4096)
        path.write_bytes(data[:at] if damage == 'cut' else data if damage != 'empty' else b'')
        try:
            load_checkpoint(model, str(path))
        except CheckpointError as error:
            assert str(path) in str(error) and 'copy or save it again' in str(error)
        else:
            assert all(torch.equal(value, state[key])
                       for key, value in model.state_dict().items()), 'other numbers than saved'

    @pytest.mark.parametrize('key, value, said', [
        ('input_quantizer.interval', torch.tensor(float('nan')), 'holds NaN or infinity'),
        ('input_quantizer.interval', torch.tensor(float('inf')), 'holds NaN or infinity'),
        ('input_quantizer.interval', torch.tensor(-0.5), r'is -0.5, and an interval'),
        ('weight_quantizer.interval', torch.tensor(0.), 'is 0, and an interval'),
        ('weight_quantizer.interval', torch.tensor(True), r'is of torch.bool'),
        ('weight_quantizer.interval', torch.tensor(1.1, dtype=torch.float64), 'do not fit'),
        ('weight_quantizer.interval', torch.empty((), device='meta'), 'device meta'),
        ('weight_quantizer.bits', torch.tensor(4.), r'is of torch.float32'),
        ('weight_quantizer.bits', torch.tensor([4, 4]), 'in another shape'),
        ('weight_quantizer.normalization', torch.tensor(3), r'unknown normalization \(3\)'),
        ('weight_quantizer.initialized', torch.tensor(1), r'is of torch.int64'),
        ('weight', torch.full((8, 8, 3, 3), float('-inf')), 'holds NaN or infinity'),
        ('weight', torch.ones(8, 8, 3, 3).to_sparse(), 'not a dense tensor but sparse_coo'),
        ('weight', torch.empty(8, 8, 3, 3, device='meta'), 'device meta'),
        ('weight', torch.ones(8, 8, 3, 3, dtype=torch.int32), r'is of torch.int32'),
        ('weight', 'text', 'is a str, expected a Tensor'),
    ])  # yapf: disable
    def test_of_values(self, model, state, tmp_path, key, value, said):
        path = saved(dict(state_dict={**state, f'{INNER}.{key}': value}), tmp_path / 'given.pth')
        before = {name: each.clone() for name, each in model.state_dict().items()}
        with pytest.raises((CheckpointError, CheckpointMismatchError)) as error:
            load_checkpoint(model, path)
        assert error.match(said) and error.match(f'{INNER}.{key}'.rpartition('.')[0])
        assert path in str(error.value)
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())

    def test_of_a_variance(self, model, state, tmp_path):
        wrong = {**state, 'backbone.bn1.running_var': -state['backbone.bn1.running_var']}
        with pytest.raises(CheckpointError, match='backbone.bn1.running_var.*not negative'):
            load_checkpoint(model, saved(wrong, tmp_path / 'given.pth'))

    def test_of_a_float_model(self, tmp_path):
        model = build(model_cfg())
        state = {**model.state_dict(), 'backbone.conv1.weight': torch.full((8, 3, 7, 7), torch.nan)}
        with pytest.raises(CheckpointError, match='backbone.conv1.weight holds NaN.*given.pth'):
            load_checkpoint(model, saved(state, tmp_path / 'given.pth'))

    def test_half_precision_is_taken(self, model, state, tmp_path):
        half = {
            key: value.half() if value.is_floating_point() else value
            for key, value in state.items()
        }
        load_checkpoint(model, saved(half, tmp_path / 'given.pth'))
        assert torch.equal(model.state_dict()[f'{INNER}.weight'], half[f'{INNER}.weight'].float())

    @pytest.mark.parametrize('content, said', [
        ([1, 2], 'the file is a list'),
        (dict(state_dict=[]), 'state_dict is a list'),
        (dict(state_dict={}, meta=3), 'meta is an int'),
        (dict(state_dict={}, meta=dict(dataset_meta=[1])), 'dataset_meta is a list'),
        (dict(state_dict={}, meta=dict(dataset_meta=torch.ones(2))), 'dataset_meta is a Tensor'),
        (dict(state_dict={}, message_hub=dict(runtime_info=1)), 'runtime_info is an int'),
        (dict(state_dict={3: torch.ones(1)}), 'the key 3 of state_dict'),
    ])  # yapf: disable
    def test_of_the_layout(self, model, tmp_path, content, said):
        path = saved(content, tmp_path / 'given.pth')
        with pytest.raises(CheckpointError, match=f'given.pth.*{said}'):
            load_checkpoint(model, path)

    def test_no_message_gives_the_advice_of_torch(self, tmp_path):
        path = saved(dict(x=Call(print, 1)), tmp_path / 'given.pth')
        with pytest.raises(CheckpointError) as error:
            load_from_local(path)
        chain = [error.value, error.value.__cause__, error.value.__context__]
        assert not any('weights_only' in str(each) for each in chain)

    def test_loading_in_threads(self, tmp_path, checkpoint):
        path, failed = saved(checkpoint, tmp_path / 'given.pth'), []

        def load() -> None:
            try:
                for _ in range(4):
                    load_from_local(path, 'cpu')
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
