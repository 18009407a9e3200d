"""How the arguments of the tools change a config, and one whole run of training and testing."""
from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer

from mmaqd.checkpoints import CheckpointError
from mmaqd.engine import launch
from tests.helpers.data import make_coco, run_cfg


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[str, Path]:
    """A low-bit run of one epoch: its config's path and its work dir."""
    root = tmp_path_factory.mktemp('run')
    path = root / 'tiny.py'
    run_cfg(make_coco(root / 'data', num_empty=1), root / 'work', bits=4).dump(path)
    launch.train(str(path))
    return str(path), root / 'work'


@pytest.fixture
def cfg_path(tmp_path) -> str:
    """A config whose data do not exist."""
    path = tmp_path / 'named.py'
    cfg = run_cfg(tmp_path / 'no-data', tmp_path / 'work')
    cfg.work_dir = None
    cfg.dump(path)
    return str(path)


def test_work_dir_is_the_argument_then_the_config_then_the_name(cfg_path):
    assert launch.load_config(cfg_path).work_dir == 'work_dirs/named'
    in_config = dict(work_dir='there')
    assert launch.load_config(cfg_path, None, in_config).work_dir == 'there'
    assert launch.load_config(cfg_path, 'here', in_config).work_dir == 'here'


def test_options_and_launcher_reach_the_config(cfg_path):
    cfg = launch.load_config(cfg_path, None, {'model.bbox_head.num_classes': 7}, 'pytorch')
    assert cfg.model.bbox_head.num_classes == 7 and cfg.launcher == 'pytorch'


def test_missing_data_are_found_before_the_model_is_built(cfg_path):
    with pytest.raises(FileNotFoundError, match='train_dataloader.dataset.ann_file: .*no-data'):
        launch.train(cfg_path, cfg_options={'model.type': 'NoSuchModel'})
    with pytest.raises(FileNotFoundError, match='test_dataloader.dataset.ann_file: .*no-data'):
        launch.test(cfg_path, 'any.pth')


def test_amp_needs_a_gpu(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp needs a GPU'):
        launch.enable_amp(cfg)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    launch.enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')


def test_scaled_learning_rate_needs_the_batch_size():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    for wrong in (dict(), dict(auto_scale_lr=dict(enable=False))):
        with pytest.raises(ValueError, match='no auto_scale_lr.base_batch_size'):
            launch.enable_auto_scale_lr(Config(wrong))


def test_visualization_needs_its_hook():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='DetVisualizationHook'))))
    launch.enable_visualization(cfg, True, 'shown', 0.5)
    assert cfg.default_hooks.visualization == dict(
        type='DetVisualizationHook', draw=True, show=True, wait_time=0.5, test_out_dir='shown')
    with pytest.raises(ValueError, match='need the visualization hook'):
        launch.enable_visualization(Config(dict()), True, None, 2)


def test_predictions_are_written_to_pickle_files_only(cfg_path):
    with pytest.raises(ValueError, match="--out .* got 'a.json'"):
        launch.test(cfg_path, 'any.pth', out='a.json')


def test_resume_without_a_checkpoint_keeps_the_start(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='float.pth'))
    launch.set_resume(cfg, 'auto')
    assert cfg.load_from == 'float.pth' and not cfg.get('resume')


def test_resume_takes_the_latest_or_the_named_checkpoint(run):
    cfg = Config(dict(work_dir=str(run[1]), load_from='float.pth'))
    launch.set_resume(cfg, 'auto')
    assert cfg.load_from == str(run[1] / 'epoch_1.pth') and cfg.resume
    launch.set_resume(cfg, 'other.pth')
    assert cfg.load_from == 'other.pth' and cfg.resume


def test_each_run_of_a_process_draws_into_its_own_folder(run, tmp_path):
    Visualizer.get_instance('left over', save_dir=str(tmp_path))
    for name in ('first', 'second'):
        runner = launch.train(run[0], str(tmp_path / name))
        assert Visualizer.get_current_instance() is runner.visualizer
        assert len(list((tmp_path / name).glob('*/vis_data/scalars.json'))) == 1


def test_runs_that_start_in_the_same_second_log_into_their_own_folders(run, tmp_path, monkeypatch):
    runners = []
    for name in ('first', 'second'):
        cfg = launch.load_config(run[0], None)
        cfg.work_dir = str(tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr('time.time', lambda: 1.7e9)
            runners.append(launch.build_runner(cfg))
    first, second = runners
    assert first.experiment_name == second.experiment_name
    first.logger.info('this is the first run')
    second.logger.info('this is the second run')
    for name in ('first', 'second'):
        log, = (tmp_path / name).glob('*/*.log')
        assert f'this is the {name} run' in log.read_text()
    assert first.message_hub is not second.message_hub


def test_resumed_training_goes_on(run, tmp_path):
    first = str(run[1] / 'epoch_1.pth')
    runner = launch.train(
        run[0], str(tmp_path), resume=first, cfg_options={'train_cfg.max_epochs': 2})
    assert runner.epoch == 2 and runner.iter == 2 * len(runner.train_dataloader)
    assert (tmp_path / 'epoch_2.pth').exists() and not (tmp_path / 'epoch_1.pth').exists()


def test_testing_gives_metrics_predictions_and_pictures(run, tmp_path):
    out = tmp_path / 'predictions.pkl'
    metrics = launch.test(
        run[0], str(run[1] / 'epoch_1.pth'), str(tmp_path), str(out), show_dir='shown')
    assert 'coco/bbox_mAP' in metrics
    with out.open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert len(list(tmp_path.glob('*/shown/*.*'))) == 4


def test_testing_with_mirror_images(run, tmp_path):
    metrics = launch.test(run[0], str(run[1] / 'epoch_1.pth'), str(tmp_path), tta=True)
    assert 'coco/bbox_mAP' in metrics


def test_pipeline_of_the_config_is_used_for_mirror_images():
    own = [dict(type='Own')]
    cfg = Config(
        dict(
            model=dict(type='A'),
            tta_model=dict(type='B'),
            tta_pipeline=own,
            test_dataloader=dict(dataset=dict(type='Repeat', dataset=dict(pipeline=[])))))
    launch.enable_tta(cfg)
    assert cfg.model == dict(type='B', module=dict(type='A'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == own


def test_checkpoint_without_a_value_is_refused(run, tmp_path):
    empty = tmp_path / 'empty.pth'
    empty.touch()
    with pytest.raises(CheckpointError, match='is empty'):
        launch.test(run[0], str(empty), str(tmp_path))


def test_training_state_of_many_kinds_can_be_resumed(run, tmp_path):
    options = dict(
        train_cfg=dict(max_epochs=2),
        optim_wrapper=dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW')),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='CosineAnnealingLR', T_max=4, by_epoch=False),
            dict(type='OneCycleLR', eta_max=0.01, total_steps=4, by_epoch=False),
        ],
        custom_hooks=[dict(type='EMAHook'),
                      dict(type='mmaqd.InitializeIntervalsHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='coco/bbox_mAP')))
    path = tmp_path / 'all.py'
    cfg = Config.fromfile(run[0])
    cfg.train_cfg.val_interval = 1
    cfg.merge_from_dict(options)
    cfg.dump(path)
    launch.train(str(path), str(tmp_path / 'work'), cfg_options={'train_cfg.max_epochs': 1})
    assert torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)['ema_state_dict']
    runner = launch.train(str(path), str(tmp_path / 'work'), resume='auto')
    assert runner.epoch == 2
    best = next((tmp_path / 'work').glob('best_*.pth'))
    assert launch.test(str(path), str(best), str(tmp_path / 'test'))
