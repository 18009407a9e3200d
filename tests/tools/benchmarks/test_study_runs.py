"""A run: its command lines, what its folder says, and how it is cleaned, locked and adopted."""
from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from study_runs import METRICS, StaleRunError, build_runs, is_in_use, is_whole


@pytest.fixture
def make_runs(fake_tools, tmp_path, monkeypatch):
    """Builds the runs of some rows, by ``row/seed``, with paths below the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*rows, seeds=(0, ), split='test'):
        runs = build_runs({row.name: row for row in rows}, seeds, 'out', split)
        return {f'{run.row.name}/{run.seed}': run for run in runs}

    return make


def write_checkpoint(run, epoch: int) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(run.folder / f'epoch_{epoch}.pth', 'w') as file:
        file.writestr('data.pkl', 'weights')


def write_config(run, **changes) -> None:
    config = {**run.config.to_dict(), **changes}
    lines = [f'{key} = {value!r}\n' for key, value in config.items()]
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / 'net.py').write_text(''.join(lines))


class TestCommandLines:

    def test_training(self, make_runs, make_row):
        runs = make_runs(
            make_row('base'),
            make_row('low', start='base', overrides={
                'model.depth': 2,
                'train_cfg.max_epochs': 2
            }),
            seeds=(4, ))
        assert runs['base/4'].arguments('train') == [
            'configs/net.py', '--work-dir', 'out/base/seed_4', '--resume', '--cfg-options',
            'randomness.seed=4'
        ]
        assert runs['low/4'].arguments('train') == [
            'configs/net.py', '--work-dir', 'out/low/seed_4', '--resume', '--cfg-options',
            'model.depth=2', 'train_cfg.max_epochs=2', 'randomness.seed=4',
            'load_from=out/base/seed_4/epoch_3.pth'
        ]
        assert runs['low/4'].checkpoint.name == 'epoch_2.pth'

    def test_evaluation_asks_for_all_numbers(self, make_runs, make_row):
        run = make_runs(make_row('low', overrides={'model.depth': 2}))['low/0']
        assert run.arguments('test') == [
            'configs/net.py', 'out/low/seed_0/epoch_3.pth', '--work-dir', 'out/low/seed_0/test',
            '--cfg-options', 'model.depth=2', f'test_evaluator.metric_items=[{",".join(METRICS)}]',
            'test_evaluator.classwise=True'
        ]

    def test_calibration(self, make_runs, make_row):
        runs = make_runs(
            make_row('base'), make_row('low', start='base', trains=False),
            make_row('bn', start='base', trains=False, reestimates_bn=True))
        assert runs['low/0'].arguments('calibrate') == [
            'configs/net.py', 'out/base/seed_0/epoch_3.pth', '--out',
            'out/low/seed_0/calibrated.pth', '--cfg-options', 'randomness.seed=0'
        ]
        assert '--reestimate-bn' in runs['bn/0'].arguments('calibrate')

    def test_choosing_settings_leaves_the_test_split_alone(self, make_runs, make_row):
        run = make_runs(make_row('base'), split='val')['base/0']
        options = [
            'train_dataloader.dataset.ann_file=annotations/train.json',
            'test_dataloader.dataset.ann_file=annotations/val.json',
            'test_evaluator.ann_file=data/annotations/val.json'
        ]
        for step in ('train', 'test'):
            assert set(options) <= set(run.arguments(step))
        assert run.config.test_dataloader.dataset.ann_file == 'annotations/val.json'

    @pytest.mark.parametrize('named', ['twin', 'teacher'])
    def test_an_override_can_name_a_checkpoint(self, make_runs, make_row, named):
        overrides = {'model.teacher': f'{{{named}}}'}
        low = make_row('low', start='base', overrides=overrides, **{named: 'long'})
        assert low.needs == {'start': 'base', named: 'long'}
        runs = make_runs(make_row('base'), make_row('long', start='base'), low)
        assert 'model.teacher=out/long/seed_0/epoch_3.pth' in runs['low/0'].arguments('train')
        assert runs['low/0'].needs == [runs['base/0'], runs['long/0']]

    def test_a_twin_that_is_only_compared_with_is_not_needed(self, make_row):
        assert make_row('low', start='base', twin='long').needs == {'start': 'base'}


class TestState:

    def test_goes_from_training_to_test_to_done(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        assert (run.next_step(), run.epochs_done) == ('train', 0)
        write_config(run)
        write_checkpoint(run, 2)
        assert (run.next_step(), run.epochs_done) == ('train', 2)
        write_checkpoint(run, 3)
        assert (run.next_step(), run.epochs_done) == ('test', 3)
        (run.folder / 'metrics.json').write_text('{"metrics": {}}')
        assert run.next_step() is None

    def test_calibration_comes_instead_of_training(self, make_runs, make_row):
        runs = make_runs(make_row('base'), make_row('low', start='base', trains=False))
        assert runs['low/0'].next_step() == 'calibrate'

    def test_a_cut_off_checkpoint_does_not_count(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        write_config(run)
        write_checkpoint(run, 2)
        write_checkpoint(run, 3)
        run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-10])
        assert not is_whole(run.checkpoint) and not run.is_trained
        (run.folder / 'last_checkpoint').write_text('')  # killed while writing this, too
        run.begin('train')
        assert not run.checkpoint.exists()
        assert (run.folder / 'last_checkpoint').read_text() == str(run.folder / 'epoch_2.pth')

    def test_without_a_whole_checkpoint_training_starts_over(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        run.folder.mkdir(parents=True)
        (run.folder / 'epoch_1.pth').write_bytes(b'PK')
        (run.folder / 'last_checkpoint').write_text(str(run.folder / 'epoch_1.pth'))
        run.begin('train')
        assert sorted(path.name for path in run.folder.iterdir()) == ['attempts.json']

    def test_what_a_killed_test_left_is_removed(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        (run.folder / 'test' / 'old').mkdir(parents=True)
        run.begin('test')
        assert not (run.folder / 'test').exists()


class TestSettings:

    def test_a_folder_of_the_same_settings_is_adopted(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        write_config(run, work_dir='elsewhere', resume=True, load_from='some.pth')
        write_checkpoint(run, 3)
        assert run.next_step() == 'test'

    def test_data_may_lie_elsewhere(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        dataset = dict(data_root='/other/', ann_file='annotations/trainval.json')
        write_config(run, train_dataloader=dict(dataset=dataset))
        write_checkpoint(run, 1)
        assert run.next_step() == 'train'

    @pytest.mark.parametrize('change', [
        dict(model=dict(type='Net', depth=5)),
        dict(randomness=dict(seed=1)),
        dict(train_cfg=dict(max_epochs=9)),
        dict(optim_wrapper=dict(lr=1))
    ])
    def test_other_settings_are_refused(self, make_runs, make_row, change):
        run = make_runs(make_row('base'))['base/0']
        write_config(run, **change)
        write_checkpoint(run, 3)
        with pytest.raises(StaleRunError, match=f'settings in {next(iter(change))} than base has'):
            run.next_step()

    @pytest.mark.parametrize('name', ['CompileKernelsHook', 'ChannelsLastHook'])
    def test_what_makes_it_faster_is_no_other_setting(self, make_runs, make_row, name):
        run = make_runs(make_row('base'))['base/0']
        other, faster = dict(type='Hook'), dict(type=f'mmaqd.{name}')
        run.config.custom_hooks = [other]
        write_config(run, custom_hooks=[faster, other])
        write_checkpoint(run, 3)
        run.check_settings()
        write_config(run, custom_hooks=[faster])
        with pytest.raises(StaleRunError, match='settings in custom_hooks than base has'):
            run.check_settings()

    def test_checkpoints_without_a_config_are_refused(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        write_checkpoint(run, 3)
        with pytest.raises(StaleRunError, match='Move or remove the folder'):
            run.next_step()


class TestLock:

    def test_one_process_at_a_time(self, make_runs, make_row):
        first, second = (make_runs(make_row('base'))['base/0'] for _ in range(2))
        assert first.acquire()
        assert not second.acquire()
        first.release()
        assert second.acquire()

    @pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
    @pytest.mark.parametrize('place', ['out', 'link'])
    def test_a_training_by_hand_is_left_alone(self, make_runs, make_row, place):
        run = make_runs(make_row('base'))['base/0']
        run.folder.mkdir(parents=True)
        Path('link').symlink_to('out')
        assert not is_in_use(run.folder)
        sleeper = [sys.executable, '-c', 'import time; print(flush=True); time.sleep(600)']
        training = subprocess.Popen([*sleeper, '--work-dir', f'{place}/base/seed_0'],
                                    stdout=subprocess.PIPE)
        try:
            training.stdout.readline()
            assert is_in_use(run.folder)
            assert not run.acquire()
        finally:
            training.kill()
            training.communicate()
        assert run.acquire()


class TestResults:

    def finish(self, run, logged: dict, attempts=(('train', 100.0), ('test', 20.0))) -> dict:
        run.folder.mkdir(parents=True, exist_ok=True)
        for step, cpu_seconds in attempts:
            run.begin(step)
            if cpu_seconds is not None:
                run.end(cpu_seconds, 2 * cpu_seconds)
        log = run.folder / 'test' / '20260101'
        log.mkdir(parents=True)
        (log / '20260101.json').write_text(json.dumps(logged))
        run.collect()
        return run.results

    def test_everything_is_recorded(self, make_runs, make_row):
        run = make_runs(make_row('base'), seeds=(3, ))['base/3']
        results = self.finish(run, {'coco/bbox_mAP': 0.425, 'time': 1.0, 'data_time': 1.0})
        assert results['metrics']['bbox_mAP'] == 0.425
        assert 'time' not in results['metrics']
        assert (results['row'], results['seed'], results['split']) == ('base', 3, 'test')
        assert (results['cpu_seconds'], results['wall_seconds']) == (120, 240)
        assert results['all_is_measured']
        assert results['commands'][0].startswith('python tools/train.py configs/net.py --work-dir')
        assert {'python', 'torch', 'mmdet', 'mmaqd'} <= set(results['versions'])
        assert results['machine'].strip()
        assert run.seconds == 240

    def test_a_model_that_detects_nothing_has_an_ap_of_zero(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        assert self.finish(run, {'time': 1.0})['metrics']['bbox_mAP'] == 0

    def test_only_the_last_checkpoint_is_kept(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        write_checkpoint(run, 2)
        write_checkpoint(run, 3)
        self.finish(run, {'coco/bbox_mAP': 0.4})
        assert [path.name for path in run.folder.glob('*.pth')] == ['epoch_3.pth']

    def test_a_killed_step_leaves_the_time_incomplete(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        steps = (('train', None), ('train', 50.0), ('test', 5.0))
        results = self.finish(run, {'coco/bbox_mAP': 0.4}, steps)
        assert results['cpu_seconds'] == 55
        assert not results['all_is_measured'] and run.seconds is None

    def test_what_was_trained_by_hand_has_no_known_time(self, make_runs, make_row):
        run = make_runs(make_row('base'))['base/0']
        write_checkpoint(run, 3)
        results = self.finish(run, {'coco/bbox_mAP': 0.4}, [('test', 5.0)])
        assert not results['all_is_measured']
