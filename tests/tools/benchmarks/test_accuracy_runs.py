"""The command lines of a run, and what its folder says."""
from __future__ import annotations

import pytest
from accuracy_runs import METRICS, ChangedRowError, read_rows
from accuracy_study import Study


@pytest.fixture
def study(journal, table, tmp_path):
    return lambda split='test': Study(
        read_rows(table), tmp_path / 'out', tmp_path / 'record', split)


def finish(run, step: str = 'train') -> None:
    run.begin(step)
    (run.folder / 'last_checkpoint').write_text(str(run.folder / 'epoch_3.pth'))
    run.end(step)


def test_training_starts_from_a_row_and_learns_from_another(study):
    low = study().run('low', 4)
    for run in low.needs.values():
        finish(run)
    assert low.needs['start'].arguments('train') == [
        'configs/net.py', '--work-dir', 'out/base/seed_4', '--resume', '--cfg-options',
        'randomness.seed=4'
    ]
    assert low.arguments('train') == [
        'configs/low.py', '--work-dir', 'out/low/seed_4', '--resume', '--cfg-options',
        'model.bits=2', 'model.teacher=out/long/seed_4/epoch_3.pth', 'randomness.seed=4',
        'load_from=out/base/seed_4/epoch_3.pth'
    ]


def test_evaluation_asks_for_all_figures_and_the_detections(study):
    run = study().run('lonely', 0)
    finish(run)
    assert run.arguments('test') == [
        'configs/net.py', 'out/lonely/seed_0/epoch_3.pth', '--work-dir', 'out/lonely/seed_0/test',
        '--cfg-options', 'sizes=[1,2]', f'test_evaluator.metric_items=[{",".join(METRICS)}]',
        'test_evaluator.classwise=True',
        'test_evaluator.outfile_prefix=out/lonely/seed_0/test/detections'
    ]
    assert run.command('test').startswith('python tools/test.py configs/net.py out/lonely')


def test_calibration(study):
    run = study().run('calibrated', 0)
    finish(run.needs['start'])
    assert run.arguments('calibrate') == [
        'configs/low.py', 'out/long/seed_0/epoch_3.pth', '--out',
        'out/calibrated/seed_0/calibrated.pth', '--reestimate-bn', '--cfg-options',
        'randomness.seed=0'
    ]


@pytest.mark.parametrize('step', ['train', 'test'])
def test_choosing_settings_leaves_the_test_split_alone(study, step):
    arguments = study('val').run('lonely', 0).arguments(step)
    assert 'train_dataloader.dataset.ann_file=annotations/train.json' in arguments
    assert 'test_dataloader.dataset.ann_file=annotations/val.json' in arguments
    assert any(word.startswith('test_evaluator.ann_file') and word.endswith('annotations/val.json')
               for word in arguments)  # yapf: disable


def test_steps_follow_each_other(study):
    run = study().run('lonely', 0)
    assert run.next_step() == 'train' and not run.is_trained
    run.begin('train')
    assert run.next_step() == 'train' and not run.is_trained
    finish(run)
    assert run.next_step() == 'test' and run.is_trained
    run.begin('test')
    assert run.next_step() == 'test'
    run.end('test')
    assert run.next_step() is None


def test_what_another_command_made_is_refused(study, table):
    finish(study().run('lonely', 0))
    table.write_text(table.read_text().replace('[1, 2]', '[1, 3]'))
    with pytest.raises(ChangedRowError, match=r'(?s)sizes=\[1,2\].*expected.*sizes=\[1,3\]'):
        study().run('lonely', 0).next_step()
