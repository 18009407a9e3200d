"""Whole checkpoints at the wrong place: of a broken off run, of low bits, of other classes."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmaqd.checkpoints import CheckpointError, CheckpointMismatchError, load_from_local
from mmaqd.engine import launch
from tests.helpers.checkpoints import load_or_resume, resume, saved
from tests.helpers.data import run_cfg
from tests.helpers.detector import build, calibrate, loss, make_batch, model_cfg
from tests.helpers.runs import make_runner, train

INNER = 'backbone.layer1.0.conv1'


class TestResume:

    @pytest.fixture
    def broken_off(self, run, cfg) -> Path:
        """A work dir with two checkpoints, the newest of them half written."""
        work = Path(cfg.work_dir)
        work.mkdir()
        for name in ('epoch_1.pth', 'epoch_2.pth'):
            (work / name).write_bytes((run[1] / name).read_bytes())
        data = (work / 'epoch_2.pth').read_bytes()
        (work / 'epoch_2.pth').write_bytes(data[:len(data) // 2])
        (work / 'last_checkpoint').write_text(str(work / 'epoch_2.pth'))
        return work

    def test_from_the_last_whole_one(self, cfg, broken_off, monkeypatch):
        said = []
        monkeypatch.setattr('mmaqd.checkpoints.resuming.print_log', lambda *text: said.append(text))
        launch.set_resume(cfg, 'auto')
        assert cfg.load_from == str(broken_off / 'epoch_1.pth') and cfg.resume
        assert 'epoch_2.pth is cut off' in said[0][0]

    def test_from_the_last_whole_one_with_the_runner_of_mmengine(self, cfg, broken_off):
        assert resume(cfg).epoch == 2
        assert load_from_local(str(broken_off / 'epoch_2.pth'))['meta']['epoch'] == 2

    @pytest.mark.parametrize('text', ['', '/moved/away/epoch_1.pth', '\0\0\0'])
    def test_last_checkpoint_that_names_none(self, cfg, broken_off, text):
        (broken_off / 'last_checkpoint').write_text(text)
        launch.set_resume(cfg, 'auto')
        assert cfg.load_from == str(broken_off / 'epoch_1.pth')

    def test_none_is_whole(self, cfg, broken_off):
        (broken_off / 'epoch_1.pth').write_bytes(b'')
        with pytest.raises(CheckpointError, match='epoch_2.pth is cut off.*epoch_1.pth is empty'):
            launch.set_resume(cfg, 'auto')

    def test_weights_only(self, cfg, checkpoint, tmp_path):
        for content in (dict(state_dict=checkpoint['state_dict']), checkpoint['state_dict']):
            with pytest.raises(CheckpointError, match='given.pth.*holds weights only.*load_from'):
                resume(cfg, saved(content, tmp_path / 'given.pth'))

    def test_the_checkpoint_of_the_float_twin(self, cfg, run, tmp_path):
        float_cfg = run_cfg(Path(cfg.train_dataloader.dataset.data_root), tmp_path / 'float')
        train(float_cfg)
        with pytest.raises(CheckpointError, match='epoch_1.pth.*that of a float model.*load_from'):
            resume(cfg, str(tmp_path / 'float' / 'epoch_1.pth'))

    @pytest.mark.parametrize('path, value, said', [
        ('meta.epoch', None, 'meta.epoch is None'),
        ('meta.epoch', -1, 'meta.epoch is -1'),
        ('meta.iter', 'many', "meta.iter is 'many'"),
        ('meta.seed', 'x', "meta.seed is 'x'"),
        ('message_hub.log_scalars', 4, 'message_hub has no log_scalars'),
        ('optimizer.param_groups', [], 'groups of parameters'),
        ('optimizer.state', 'x', 'shapes of the parameters'),
        ('param_schedulers', 3, 'not the states of schedulers'),
    ])  # yapf: disable
    def test_nonsense(self, cfg, checkpoint, tmp_path, path, value, said):
        cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[1])]
        *parents, last = path.split('.')
        part = checkpoint
        for parent in parents:
            part = part[parent]
        part[last] = value
        with pytest.raises(CheckpointError, match=f'given.pth.*{said}'):
            resume(cfg, saved(checkpoint, tmp_path / 'given.pth'))

    @pytest.mark.parametrize('part', ['nan', 'shape'])
    def test_momentum_that_can_not_be(self, cfg, checkpoint, tmp_path, part):
        state = next(iter(checkpoint['optimizer']['state'].values()))
        state['momentum_buffer'] = (
            state['momentum_buffer'] * torch.nan if part == 'nan' else torch.ones(1, 2, 3, 4))
        said = dict(nan='momentum_buffer holds NaN', shape='does not have the shapes')[part]
        with pytest.raises(CheckpointError, match=said):
            resume(cfg, saved(checkpoint, tmp_path / 'given.pth'))

    @pytest.mark.parametrize('change, said', [
        (lambda c: c.pop('optimizer'), 'has no optimizer state'),
        (lambda c: c.pop('param_schedulers', None), 'no state of the schedulers'),
        (lambda c: c.update(param_schedulers=[dict(a=1), dict(a=1)]), 'has the state of 2 sched'),
        (lambda c: c['meta'].update(epoch=9), 'nothing is left to train'),
        (lambda c: c['meta'].update(iter=7), 'of iteration 7 after 1 epochs'),
        (lambda c: c['message_hub']['runtime_info'].update(world_size=8), 'by 8 processes, and 1'),
        (lambda c: [c['state_dict'].pop(key) for key in list(c['state_dict'])
                    if key.startswith(f'{INNER}.input_quantizer')],
         rf'1 of \d+ quantizers have no value.*anew.*{INNER}.input_quantizer'),
        (lambda c: c['state_dict'].update({f'{INNER}.input_quantizer.initialized':
                                           torch.tensor(False)}), r'1 of \d+ quantizers have no'),
    ])  # yapf: disable
    def test_what_starts_anew_or_goes_on_differently_is_a_warning(self, cfg, checkpoint, tmp_path,
                                                                  change, said):
        cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[1])]
        change(checkpoint)
        path = saved(checkpoint, tmp_path / 'given.pth')
        warnings = load_or_resume(make_runner(cfg, resume=True, load_from=path))
        assert any(re.search(said, each) for each in warnings), warnings

    def test_a_whole_one_gives_no_warning(self, cfg, run):
        path = str(run[1] / 'epoch_1.pth')
        warnings = load_or_resume(make_runner(cfg, resume=True, load_from=path))
        assert not [each for each in warnings if path in each]


class TestLowBitInFloat:

    @pytest.fixture
    def given(self, run) -> str:
        return str(run[1] / 'epoch_2.pth')

    @pytest.fixture
    def float_cfg(self, cfg) -> Config:
        return run_cfg(Path(cfg.train_dataloader.dataset.data_root), Path(cfg.work_dir))

    @pytest.mark.parametrize('way', [
        'load_from', 'resume', 'test', 'init_detector', 'inferencer', 'load_checkpoint', 'backbone'
    ])
    def test_is_refused(self, float_cfg, given, way):
        ways = dict(
            load_from=lambda: train(float_cfg, load_from=given),
            resume=lambda: resume(float_cfg, given),
            test=lambda: make_runner(float_cfg, load_from=given).test(),
            init_detector=lambda: init_detector(float_cfg, given, device='cpu', palette='random'),
            inferencer=lambda: DetInferencer(float_cfg, given, device='cpu', palette='random'),
            load_checkpoint=lambda: load_checkpoint(build(model_cfg()), given),
            backbone=lambda: build({
                **model_cfg(), 'backbone': {
                    **model_cfg()['backbone'], 'init_cfg':
                    dict(type='Pretrained', prefix='backbone', checkpoint=given)
                }
            }).init_weights())
        with pytest.raises(
                CheckpointMismatchError, match='of a low-bit model, with the quantizers'):
            ways[way]()


class TestOtherClasses:

    @pytest.fixture(params=[None, 4], ids=['float', 'w4a4'])
    def given(self, request, tmp_path) -> str:
        cfg = model_cfg('RetinaNet', request.param, num_classes=7)
        model = build(cfg, seed=5)
        if request.param:
            calibrate(model, [make_batch()])
        return saved(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'seven.pth')

    def test_are_refused_by_default(self, cfg, given):
        with pytest.raises(CheckpointMismatchError, match='another shape.*ChangeClassesHook'):
            train(cfg, load_from=given)

    def test_are_taken_where_it_is_asked_for(self, cfg, given):
        cfg.custom_hooks = [
            dict(type='mmaqd.ChangeClassesHook'),
            dict(type='mmaqd.InitializeIntervalsHook')
        ]
        runner = make_runner(cfg, load_from=given, **{'train_cfg.max_epochs': 1})
        start = runner.model.bbox_head.retina_cls.weight.detach().clone()
        warnings = load_or_resume(runner)
        assert any('start at random: bbox_head.retina_cls.' in each for each in warnings)
        own = runner.model.state_dict()
        state = load_from_local(given)['state_dict']
        assert torch.equal(own['bbox_head.retina_cls.weight'], start)
        assert not own['bbox_head.retina_cls.weight_quantizer.initialized']
        assert torch.equal(own['bbox_head.retina_reg.weight'], state['bbox_head.retina_reg.weight'])
        assert torch.equal(own[f'{INNER}.weight'], state[f'{INNER}.weight'])
        calibrate(runner.model, [make_batch()])
        assert torch.isfinite(loss(runner.model.train(), make_batch()))

    def test_of_another_width_are_refused_still(self, cfg, tmp_path):
        other = model_cfg('RetinaNet', 4, num_classes=7, feat_channels=8)
        cfg.custom_hooks = [dict(type='mmaqd.ChangeClassesHook')]
        path = saved(dict(state_dict=build(other).state_dict(), meta={}), tmp_path / 'other.pth')
        with pytest.raises(CheckpointMismatchError, match='differ in more than the number'):
            train(cfg, load_from=path)
