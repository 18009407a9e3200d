"""Reports from a config and a checkpoint: their files hold what the library measures."""
from __future__ import annotations

import csv
import json

import pytest
import torch
from matplotlib.image import imread

from mmaqd.analysis import (build_detector, iterate_batches, level_statistics, load_detector,
                            mean_loss, only_quantized, quantized_tensors, reestimated_norms,
                            report_intervals, report_level_statistics, report_quantization_noise,
                            report_sensitivity, report_size)
from mmaqd.conversion import quantization_table
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, build_calibrated, model_cfg


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Config files and checkpoints of the float and the 4-bit model."""
    root = tmp_path_factory.mktemp('reports')
    data = make_coco(root / 'data')
    for name, bits, model in (('float', None, build(model_cfg())), ('w4a4', 4,
                                                                    build_calibrated(bits=4))):
        run_cfg(data, root / f'work_{name}', bits).dump(str(root / f'{name}.py'))
        torch.save(dict(state_dict=model.state_dict(), meta={}), root / f'{name}.pth')
    return root


def read(files, name):
    """The rows of a report, after a look at all of its files."""
    by_name = {path.name: path for path in files}
    assert all(imread(path).std() > 0 for path in files if path.suffix == '.png')
    rows = json.loads(by_name[f'{name}.json'].read_text())
    with by_name[f'{name}.csv'].open() as file:
        assert list(csv.reader(file))[0] == list(rows[0])
    return rows


@pytest.mark.parametrize('name', ['float', 'w4a4'])
def test_level_statistics(folder, tmp_path, name, capsys):
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    files = report_level_statistics(
        config, checkpoint, tmp_path, layers='*.cls_convs.*', num_batches=1, device='cpu')
    rows = read(files, 'level_statistics')
    cfg, model = load_detector(config, checkpoint, device='cpu')
    measured = level_statistics(model, iterate_batches(cfg, 'train', 1))
    shown = [row['mean shift'] for row in rows if row['level'] != 'all']
    assert shown == [row.mean_shift for row in measured]
    assert 'bbox_head.reg_convs.0.bn' in capsys.readouterr().out


def test_quantization_noise(folder, tmp_path):
    config, checkpoint = folder / 'w4a4.py', folder / 'w4a4.pth'
    files = report_quantization_noise(
        config, checkpoint, tmp_path, layers='neck.lateral*', split='test', device='cpu')
    assert [path.name for path in files] == [
        'quantization_noise.csv', 'quantization_noise.json', 'quantization_noise.png',
        'histograms.png'
    ]
    rows = read(files, 'quantization_noise')
    cfg, model = load_detector(config, checkpoint, device='cpu')
    measured = quantized_tensors(model, iterate_batches(cfg, 'test', 2))
    expected = {tensor.layer: tensor.sqnr for tensor in measured if tensor.part == 'inputs'}
    assert {
        row['layer']: row['inputs: SQNR (dB)']
        for row in rows[1:]
    } == {
        name: pytest.approx(value)
        for name, value in expected.items()
    }


@pytest.mark.parametrize('report', [report_level_statistics, report_quantization_noise])
def test_a_pattern_that_matches_nothing(folder, tmp_path, report):
    with pytest.raises(ValueError, match="'nothing.*' matches no layer"):
        report(
            folder / 'w4a4.py',
            folder / 'w4a4.pth',
            tmp_path,
            layers='nothing.*',
            num_batches=1,
            device='cpu')


def test_sensitivity_of_the_loss(folder, tmp_path):
    config, checkpoint = folder / 'w4a4.py', folder / 'w4a4.pth'
    files = report_sensitivity(
        config, checkpoint, tmp_path, groups=['neck.*', 'bbox_head.*'], num_batches=1, device='cpu')
    rows = {row['quantized']: row for row in read(files, 'sensitivity')}
    cfg, model = load_detector(config, checkpoint, device='cpu')
    batches = list(iterate_batches(cfg, 'train', 1))
    neck = [row.module for row in quantization_table(model) if row.module.startswith('neck.')]
    for name, layers in (('none', ()), ('neck.*', neck)):
        with only_quantized(model, layers), reestimated_norms(model, batches):
            assert rows[name]['score'] == pytest.approx(mean_loss(model, batches))
    change = rows['neck.*']['score'] - rows['none']['score']
    assert rows['neck.*']['change'] == pytest.approx(change)


def test_sensitivity_of_ap_without_one_stage(folder, tmp_path):
    files = report_sensitivity(
        folder / 'w4a4.py',
        folder / 'w4a4.pth',
        tmp_path,
        metric='coco/bbox_mAP',
        all_but_one=True,
        device='cpu')
    rows = read(files, 'sensitivity_all_but_one')
    assert rows[0]['quantized'] == 'all' and all(0 <= row['score'] <= 1 for row in rows)
    assert {'all but backbone.layer1',
            'all but bbox_head.retina_cls'} < {row['quantized']
                                               for row in rows}


def test_sensitivity_from_a_float_checkpoint(folder, tmp_path):
    """With nothing quantized it is the float model, whose BN has the statistics of the batches."""
    files = report_sensitivity(
        folder / 'w4a4.py',
        folder / 'float.pth',
        tmp_path,
        groups=['neck.*', '*'],
        num_batches=2,
        device='cpu')
    rows = {row['quantized']: row for row in read(files, 'sensitivity')}
    cfg, model = load_detector(folder / 'float.py', folder / 'float.pth', device='cpu')
    batches = list(iterate_batches(cfg, 'train', 2))
    reference = one_pass_statistics(model, batches)
    assert rows['none']['score'] == pytest.approx(mean_loss(reference, batches), rel=1e-4)
    assert rows['*']['score'] != rows['none']['score']


@torch.no_grad()
def one_pass_statistics(model, batches):
    """The float model with BN's statistics over all values that its batches bring."""
    seen = {}
    model.eval()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    hooks = [
        norm.register_forward_pre_hook(
            lambda _, x, name=name: seen.setdefault(name, []).append(x[0]))
        for name, norm in norms.items()
    ]
    for norm in norms.values():
        norm.train()
    for batch in batches:
        model(**model.data_preprocessor(batch), mode='tensor')
    for hook in hooks:
        hook.remove()
    for name, norm in norms.items():
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen[name]], dim=1)
        norm.running_mean.copy_(values.mean(dim=1))
        norm.running_var.copy_(values.var(dim=1, correction=0))
    return model.eval()


def test_intervals(tmp_path):
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    records = [{'interval/a.weight_quantizer': 1.0 / step, 'step': step} for step in (10, 20)]
    log.write_text('\n'.join(map(json.dumps, records)))
    files = report_intervals(tmp_path)
    assert {path.parent for path in files} == {tmp_path / 'analysis'}
    assert read(files, 'intervals') == [{
        'iteration': 10,
        'a.weight_quantizer': 0.1
    }, {
        'iteration': 20,
        'a.weight_quantizer': 0.05
    }]


def test_size(folder, capsys):
    cfg, model = build_detector(folder / 'w4a4.py')
    files = report_size(cfg, model, quantization_table(model))
    assert {path.parent for path in files} == {folder / 'work_w4a4' / 'analysis'}
    rows = {row['layer']: row for row in read(files, 'size')}
    first = rows['backbone.conv1']
    # 64 x 64 pixels from the test pipeline, 8 channels at half of that; the image has 8 bits.
    assert first['MACs'] == 8 * 32 * 32 * 147
    assert first['bit operations'] == 64 * first['MACs']
    assert rows['total']['float bytes'] == 4 * sum(
        row.num_weights for row in quantization_table(model))
    assert 'One image of 64 x 64 pixels. Weights: ' in capsys.readouterr().out


def test_size_of_a_given_image(folder, tmp_path):
    cfg, model = build_detector(folder / 'float.py')
    rows = read(report_size(cfg, model, quantization_table(model), tmp_path, (32, 128)), 'size')
    assert rows[0]['MACs'] == 8 * 16 * 64 * 147
    assert rows[-1]['bit operations'] == rows[-1]['float bit operations']
