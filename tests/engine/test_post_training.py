"""Post-training quantization of a tiny detector, against steps written down here."""
from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmaqd.engine import post_training
from mmaqd.engine.launch import test as evaluate
from mmaqd.engine.post_training import calibrate_checkpoint
from mmaqd.invocation import command, same_options
from mmaqd.quantizers import calibrate
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, make_batch, raw_outputs
from tests.helpers.runs import make_runner

PLAIN = {'model.quantization.weight_quantizer.normalize': False}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco', num_images=6)


@pytest.fixture(scope='module')
def float_checkpoint(data, tmp_path_factory) -> str:
    """A checkpoint whose BN does not have the statistics that it is built with."""
    folder = tmp_path_factory.mktemp('float')
    make_runner(run_cfg(data, folder)).train()
    return str(folder / 'epoch_1.pth')


@pytest.fixture
def config(data, tmp_path) -> str:
    """A 4-bit config whose training images are mirrored, each time."""
    cfg = run_cfg(data, tmp_path / 'low', bits=4)
    cfg.train_dataloader.dataset.pipeline.insert(3, dict(type='RandomFlip', prob=1.0))
    cfg.train_dataloader.sampler.shuffle = True
    path = tmp_path / 'low.py'
    cfg.dump(path)
    return str(path)


def read(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def expected_state(config: str, checkpoint: str, batches: list) -> dict:
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(PLAIN)
    model = build(cfg.model.to_dict())
    model.load_state_dict(read(checkpoint)['state_dict'], strict=False)
    calibrate(model, batches)
    return model.state_dict()


@pytest.fixture
def seen(monkeypatch) -> list:
    """The batches that the model was calibrated with."""
    batches = []

    def keep(model, given, **options):
        batches.extend(given)
        return calibrate(model, batches, **options)

    monkeypatch.setattr(post_training, 'calibrate', keep)
    return batches


def test_weights_stay_and_intervals_start_from_the_batches(config, float_checkpoint, seen,
                                                           tmp_path):
    out = tmp_path / 'new' / 'ptq.pth'
    started = calibrate_checkpoint(config, float_checkpoint, str(out), 2, cfg_options=PLAIN)
    state = read(out)['state_dict']
    assert started == sum(key.endswith('.interval') for key in state) > 0
    assert len(seen) == 2
    expected = expected_state(config, float_checkpoint, seen)
    assert state.keys() == expected.keys()
    assert [key for key in state if not torch.equal(state[key], expected[key])] == []


def test_images_are_those_of_the_training_data_without_augmentation(config, float_checkpoint, seen,
                                                                    tmp_path):
    calibrate_checkpoint(config, float_checkpoint, str(tmp_path / 'a.pth'), 9, cfg_options=PLAIN)
    given = {
        sample.img_id: image
        for batch in seen
        for sample, image in zip(batch['data_samples'], batch['inputs'])
    }
    assert len(seen) == 3 and len(given) == 6, 'each image once, though more were asked for'
    plain = Runner.build_dataloader(Config.fromfile(config).test_dataloader)
    for batch in plain:
        for sample, image in zip(batch['data_samples'], batch['inputs']):
            assert torch.equal(given[sample.img_id], image)


def test_the_same_seed_gives_the_same_checkpoint(config, float_checkpoint, tmp_path):
    states = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        out = tmp_path / f'{name}.pth'
        options = {**PLAIN, 'randomness.seed': seed}
        calibrate_checkpoint(config, float_checkpoint, str(out), 1, cfg_options=options)
        states.append(read(out)['state_dict'])
    first, second, other = states
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_bn_is_estimated_anew_on_demand(config, float_checkpoint, tmp_path):
    kept, anew = tmp_path / 'kept.pth', tmp_path / 'anew.pth'
    calibrate_checkpoint(config, float_checkpoint, str(kept), 3, cfg_options=PLAIN)
    calibrate_checkpoint(config, float_checkpoint, str(anew), 3, True, PLAIN)
    kept, anew = (read(path)['state_dict'] for path in (kept, anew))
    changed = {key for key in kept if not torch.equal(kept[key], anew[key])}
    statistics = {key for key in kept if key.endswith(('running_mean', 'running_var'))}
    assert changed and changed <= statistics
    assert {'backbone.bn1.running_mean', 'bbox_head.cls_convs.0.bn.0.running_var'} <= changed


def test_the_test_tool_takes_the_checkpoint(config, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    calibrate_checkpoint(config, float_checkpoint, str(out), 1, cfg_options=PLAIN)
    metrics = evaluate(config, str(out), str(tmp_path / 'test'), cfg_options=PLAIN)
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    checkpoint = read(out)
    assert checkpoint['meta']['dataset_meta']['classes'] == ('dark', 'grey', 'light')
    assert 'optimizer' not in checkpoint and checkpoint['meta']['epoch'] == 0


def test_wrapped_datasets_are_unwrapped(config, float_checkpoint, seen, tmp_path):
    dataset = Config.fromfile(config).train_dataloader.dataset
    options = {
        **PLAIN, 'train_dataloader.dataset':
        dict(
            _delete_=True,
            type='RepeatDataset',
            times=2,
            dataset=dict(type='ConcatDataset', datasets=[dataset, dataset]))
    }
    calibrate_checkpoint(config, float_checkpoint, str(tmp_path / 'a.pth'), 99, cfg_options=options)
    samples = [sample for batch in seen for sample in batch['data_samples']]
    assert len(samples) == 12
    assert not any(sample.get('flip') for sample in samples)


def test_normalized_weights_are_refused(config, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    with pytest.raises(
            ValueError, match=r'backbone\.\S+weight_quantizer among them.*normalize=False'):
        calibrate_checkpoint(config, float_checkpoint, str(out))
    assert not out.exists()


def dorefa() -> dict:
    """Options, made anew each time: merging them changes them."""
    weight = dict(_delete_=True, type='mmaqd.DoReFaWeightQuantizer', bit_width=8)
    return {
        'model.quantization.weight_quantizer': weight,
        'model.quantization.input_quantizer.bit_width': 8
    }


EIGHT = {f'model.quantization.{role}_quantizer.bit_width': 8 for role in ('weight', 'input')}


@pytest.fixture
def plain_rules(config) -> str:
    """The config with rules that fit weights of any family."""
    cfg = Config.fromfile(config)
    for rule in cfg.model.quantization.rules:
        rule.weight_quantizer = dict(type='mmaqd.LIQWeightQuantizer', bit_width=8, normalize=False)
    cfg.dump(config)
    return config


def test_dorefa_needs_bn_that_is_estimated_anew(plain_rules, float_checkpoint, data, tmp_path):
    """The outputs are those of the float model, or there is an error and no file."""
    out = tmp_path / 'out' / 'ptq.pth'
    with pytest.raises(
            ValueError, match=r'weight_quantizer among them.*LSQWeightQuantizer.*--reestimate-bn'):
        calibrate_checkpoint(plain_rules, float_checkpoint, str(out), 3, cfg_options=dorefa())
    assert not out.exists()
    outputs = []
    for options in (dorefa(), {**EIGHT, **PLAIN}):
        calibrate_checkpoint(plain_rules, float_checkpoint, str(out), 3, True, deepcopy(options))
        cfg = Config.fromfile(plain_rules)
        cfg.merge_from_dict(options)
        model = build(cfg.model.to_dict()).eval()
        model.load_state_dict(read(out)['state_dict'])
        outputs.append(raw_outputs(model, make_batch()))
    # Plain weights of 8 bits are next to float; the statistics of BN are those of the same images.
    ours, expected = (torch.cat([level.flatten() for level in each]) for each in outputs)
    assert (ours - expected).abs().mean() < 0.4 * expected.abs().mean()


@pytest.mark.parametrize('changes, message', [
    pytest.param({'model.backbone.norm_eval': True},
                 r'backbone\.bn1 |backbone\S+bn\d behind it keeps its statistics.*norm_eval=False',
                 id='frozen'),
    pytest.param({'model.quantization.rules': []}, r'retina_(cls|reg): .*no norm gets its output',
                 id='without-a-norm'),
])  # yapf: disable
def test_dorefa_without_bn_that_trains(changes, message, plain_rules, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    changes = {**dorefa(), **changes}
    with pytest.raises(ValueError, match=message):
        calibrate_checkpoint(plain_rules, float_checkpoint, str(out), 1, True, changes)
    assert not out.exists()


def test_weights_that_keep_their_mean_go_with_bn_that_is_estimated_anew(
        config, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    with pytest.raises(ValueError, match='take the mean from the weights.*normalize=False'):
        calibrate_checkpoint(config, float_checkpoint, str(out), 1, True)
    scaled = {'model.quantization.weight_quantizer.center': False}
    assert calibrate_checkpoint(config, float_checkpoint, str(out), 1, True, scaled) > 0
    assert out.exists()


def test_fixed_ranges_have_nothing_to_start_and_are_fine(plain_rules, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    fixed = dict(_delete_=True, type='mmaqd.DoReFaActivationQuantizer', bit_width=8, clip=4.0)
    lsq = dict(_delete_=True, type='mmaqd.LSQWeightQuantizer', bit_width=8)
    options = {
        'model.quantization.input_quantizer': fixed,
        'model.quantization.weight_quantizer': lsq
    }
    calibrate_checkpoint(plain_rules, float_checkpoint, str(out), 1, cfg_options=options)
    assert out.exists()


def test_a_checkpoint_with_intervals_is_refused(config, float_checkpoint, tmp_path):
    out = tmp_path / 'ptq.pth'
    calibrate_checkpoint(config, float_checkpoint, str(out), 1, cfg_options=PLAIN)
    with pytest.raises(ValueError, match='no interval to start. Give a low-bit config.*already'):
        calibrate_checkpoint(config, str(out), str(tmp_path / 'again.pth'), 1, cfg_options=PLAIN)


def test_a_float_config_is_refused(data, float_checkpoint, tmp_path):
    path = tmp_path / 'float.py'
    run_cfg(data, tmp_path / 'work').dump(path)
    with pytest.raises(ValueError, match='no interval to start, as its model is in float'):
        calibrate_checkpoint(str(path), float_checkpoint, str(tmp_path / 'a.pth'), 1)


def test_no_batches_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match='num_batches must be at least 1, but got 0'):
        calibrate_checkpoint(config, 'float.pth', str(tmp_path / 'a.pth'), 0)


def test_the_end_of_it_is_one_line_and_one_file(config, float_checkpoint, tmp_path, capsys):
    out = tmp_path / 'out' / 'ptq.pth'
    started = calibrate_checkpoint(config, float_checkpoint, str(out), 1, cfg_options=PLAIN)
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == (
        f'Calibrated on 1 batches (2 images): {started} quantizers got intervals. Wrote {out}. '
        f'Next: {command("test", config, out, *same_options(PLAIN))}')
    assert said.splitlines()[-1].endswith('normalize=False')  # without it the file fits no model
    assert [path.name for path in out.parent.iterdir()] == ['ptq.pth']


@pytest.mark.parametrize('name', ['', 'new/'])
def test_a_folder_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(ValueError, match='--out must name the file .* is a folder: give'):
        calibrate_checkpoint('no.py', 'no.pth', f'{tmp_path}/{name}')


def test_the_pipeline_of_the_validation_will_do(config, float_checkpoint, seen, tmp_path):
    cfg = Config.fromfile(config)
    for key in ('test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg.pop(key)
    cfg.dump(tmp_path / 'no_test.py')
    out = str(tmp_path / 'a.pth')
    calibrate_checkpoint(str(tmp_path / 'no_test.py'), float_checkpoint, out, 1, cfg_options=PLAIN)
    assert len(seen) == 1
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key)
    cfg.dump(tmp_path / 'none.py')
    with pytest.raises(ValueError, match='no pipeline for evaluation: neither test_dataloader nor'):
        calibrate_checkpoint(str(tmp_path / 'none.py'), float_checkpoint, out, 1, cfg_options=PLAIN)


def test_a_concatenated_test_set_has_a_pipeline_too(config, float_checkpoint, seen, tmp_path):
    dataset = Config.fromfile(config).test_dataloader.dataset
    both = dict(_delete_=True, type='ConcatDataset', datasets=[dataset, dataset])
    options = {**PLAIN, 'test_dataloader.dataset': both}
    calibrate_checkpoint(config, float_checkpoint, str(tmp_path / 'a.pth'), 1, cfg_options=options)
    assert len(seen) == 1
