"""The demo's stages, with the two tools replaced by ones that only write what they would."""
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from mmengine.config import Config

from mmaqd.datasets import ShapesSpec
from mmaqd.demo import Demo, pipeline
from mmaqd.demo.report import ReportRow, report_row
from mmaqd.export.latency import Latency

STAGES = [
    'data', 'train-float', 'test-float', 'train-w4a4', 'test-w4a4', 'convert', 'test-integers',
    'export-float', 'export', 'test-file', 'latency', 'table', 'pictures'
]
INTERVALS = {'neck.conv.weight_quantizer': 1.0, 'neck.conv.input_quantizer': 2.0}


class FakeTools:
    """Stands for train.py and test.py; ``fails`` names a work dir at which it gives up."""

    def __init__(self):
        self.commands = []
        self.fails = None

    def __call__(self, name, arguments, environment, report):
        self.commands.append((name, arguments, environment))
        if name.startswith('deployment/'):
            out = Path(arguments[arguments.index('--out') + 1])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(bytes(30_000 if '--float' in arguments else 10_000))
            return
        work_dir = Path(arguments[arguments.index('--work-dir') + 1])
        if self.fails == work_dir.name:
            raise KeyboardInterrupt
        log_dir = work_dir / '20260101_000000'
        (log_dir / 'vis_data').mkdir(parents=True, exist_ok=True)
        if name == 'train.py':
            self._train(Config.fromfile(arguments[0]), work_dir, log_dir)
        else:
            self._test(arguments, log_dir)

    def _train(self, cfg, work_dir, log_dir):
        state = {f'{name}.interval': torch.tensor(2 * value) for name, value in INTERVALS.items()}
        torch.save(dict(state_dict=state), work_dir / f'epoch_{cfg.train_cfg.max_epochs}.pth')
        record = {f'interval/{name}': value for name, value in INTERVALS.items()}
        (log_dir / 'vis_data' / 'scalars.json').write_text(json.dumps(dict(record, step=10)))

    def _test(self, arguments, log_dir):
        assert Path(arguments[1]).is_file()
        prefix = arguments[-1].split('test_evaluator.outfile_prefix=')[1]
        Path(f'{prefix}.bbox.json').write_text(
            json.dumps([dict(image_id=1, category_id=1, bbox=[1, 1, 50, 50], score=0.9)]))
        metrics = {'coco/bbox_mAP': 0.6789, 'coco/bbox_mAP_50': 0.9}
        (log_dir / f'{log_dir.name}.json').write_text(json.dumps(metrics))


def fake_measure(files, shape):
    assert shape == (1, 3, 256, 256) and all(Path(path).is_file() for path in files.values())
    return [
        Latency(name, engine, (3.0 if 'float' in path else 1.0, ))
        for (name, engine), path in files.items()
    ]


@pytest.fixture
def tools(monkeypatch):
    fake = FakeTools()
    monkeypatch.setattr(pipeline, 'run_tool', fake)
    monkeypatch.setattr(pipeline, 'measure', fake_measure)
    monkeypatch.setattr(pipeline.Demo, 'exports', True)
    return fake


@pytest.fixture
def no_figures(monkeypatch):
    """Skips what takes long and only tells of the models: table rows and pictures."""
    row = ReportRow('some', 1.0, 2.0, '4', '4', 0.1, 0.2)
    monkeypatch.setattr(pipeline, 'report_row', lambda *arguments: row)
    monkeypatch.setattr(pipeline, 'plot_detections', lambda *arguments: Figure())
    monkeypatch.setattr(pipeline, 'plot_intervals', lambda *arguments: Figure())


@pytest.fixture
def demo(tmp_path, tools, monkeypatch):
    # Demo sets this variable for the configs; here it is unset again after the test.
    monkeypatch.setenv('MMAQD_SHAPES', '')
    monkeypatch.chdir(tmp_path)
    return lambda: Demo(
        'out', 'shapes', report=lambda line: None, spec=ShapesSpec(num_train=2, num_val=5))


def test_everything_is_made(demo, tmp_path):
    lines = []
    made = demo()
    made.report = lines.append
    assert made.run() == STAGES
    rows = json.loads((tmp_path / 'out/results.json').read_text())
    assert [row['model'] for row in rows] == ['float', 'w4a4', 'integers', 'file']
    assert [row['ap'] for row in rows] == [67.9] * 4 and rows[0]['ap50'] == 90.0
    assert [row['file_megabytes'] for row in rows] == [0.03, None, None, 0.01]
    assert [row['latency_milliseconds'] for row in rows] == [3.0, None, None, 1.0]
    assert rows[2]['weight_megabytes'] == rows[1]['weight_megabytes']
    for name in ('detections.png', 'intervals.png'):
        assert imread(tmp_path / 'out' / name).std() > 0
    text = '\n'.join(lines)
    assert (tmp_path / 'out/results.md').read_text() in text
    for path in ('results.json', 'detections.png', 'intervals.png', 'float/epoch_', 'w4a4/epoch_',
                 'integers/twin.pth', 'file/w4a4.onnx'):
        assert f'out/{path}' in text


def test_without_an_engine_there_is_no_file(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(Demo, 'exports', False)
    lines = []
    made = demo()
    made.report = lines.append
    assert made.run() == [name for name in STAGES if name not in STAGES[7:11]]
    assert "pip install 'mmaqd[export]'" in '\n'.join(lines)
    rows = json.loads((tmp_path / 'out/results.json').read_text())
    assert [row['model'] for row in rows] == ['float', 'w4a4', 'integers']


def test_sizes_and_bits_of_the_table(demo):
    demo_models = demo().float_model, demo().low_bit_model
    metrics = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.6}
    rows = [asdict(report_row(each.name, each.config, metrics, 256)) for each in demo_models]
    assert (rows[0]['weight_bits'], rows[0]['input_bits']) == ('32', '32')
    assert rows[1]['weight_bits'] == rows[1]['input_bits'] == '4, 8 in 3 convs'
    assert rows[0]['weight_megabytes'] / rows[1]['weight_megabytes'] == pytest.approx(8, rel=0.05)
    ratio = rows[0]['giga_bit_operations'] / rows[1]['giga_bit_operations']
    assert 16 < ratio < 64  # all convs at 8 bits, all convs at 4 bits


def test_commands_are_those_of_a_user(demo, tools, no_figures):
    demo().run()
    names = [name for name, _, _ in tools.commands]
    assert names == [
        'train.py', 'test.py', 'train.py', 'test.py', 'deployment/convert_integer.py', 'test.py',
        'deployment/export.py', 'deployment/export.py', 'test.py'
    ]
    low_bit = tools.commands[2][1]
    load, = [word for word in low_bit if word.startswith('load_from=')]
    assert '--resume' in low_bit and load.startswith('load_from=out/float/epoch_')
    assert all(env == {'MMAQD_SHAPES': 'shapes/'} for _, _, env in tools.commands)


def test_a_second_call_does_nothing_again(demo, tools, no_figures):
    demo().run()
    tools.commands.clear()
    assert demo().run() == [] and tools.commands == []


def test_goes_on_after_an_interruption(demo, tools, no_figures):
    tools.fails = 'w4a4'
    with pytest.raises(KeyboardInterrupt):
        demo().run()
    tools.fails = None
    kept = Path('out/w4a4/from_before')
    kept.parent.mkdir(exist_ok=True)
    kept.touch()
    assert demo().run() == STAGES[3:]
    assert kept.exists()


def test_lost_data_is_made_again_and_training_resumes(demo, no_figures):
    demo().run()
    Path('shapes/val/000002.jpg').unlink()
    kept = Path('out/float/from_before')
    kept.touch()
    assert demo().run() == STAGES
    assert kept.exists()


def test_a_changed_config_trains_that_model_from_the_start(demo, tmp_path, no_figures):
    demo().run()
    left = [Path('out', name, 'from_before') for name in ('float', 'w4a4')]
    for path in left:
        path.touch()
    changed = demo()
    other = tmp_path / 'changed.py'
    other.write_text(f"_base_ = {changed.low_bit_model.config!r}\n"
                     'optim_wrapper = dict(optimizer=dict(lr=0.123))\n')
    object.__setattr__(changed.low_bit_model, 'config', str(other))
    assert changed.run() == STAGES[3:]
    assert [path.exists() for path in left] == [True, False]


def test_fresh_starts_over_but_keeps_the_data(demo, no_figures):
    demo().run()
    before = Path('shapes/train/000000.jpg').stat().st_mtime_ns
    left = Path('out/float/from_before')
    left.touch()
    assert demo().run(fresh=True) == STAGES
    assert not left.exists()
    assert Path('shapes/train/000000.jpg').stat().st_mtime_ns == before


@pytest.mark.parametrize('fresh', [False, True])
def test_a_folder_of_others_is_refused_untouched(demo, fresh):
    Path('out/float').mkdir(parents=True)
    Path('out/float/thesis.tex').touch()
    with pytest.raises(ValueError, match='out holds files.*--work-dir'):
        demo().run(fresh=fresh)
    assert Path('out/float/thesis.tex').exists()
