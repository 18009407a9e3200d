"""Loading a detector and its batches from a config."""
from __future__ import annotations

import pytest
import torch

from mmaqd.analysis import (build_detector, initialize_intervals, is_float_checkpoint,
                            iterate_batches, load_detector)
from mmaqd.quantizers import UninitializedIntervalError
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, build_calibrated, make_batch, model_cfg, raw_outputs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp('coco'), num_images=6)


def write(folder, data, model, bits=None):
    """A config file and a checkpoint of its model."""
    run_cfg(data, folder / 'work', bits).dump(str(folder / 'config.py'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'model.pth')
    return folder / 'config.py', folder / 'model.pth'


def test_loaded_detector_computes_what_was_saved(tmp_path, data):
    model = build_calibrated(bits=4).eval()
    cfg, loaded = load_detector(*write(tmp_path, data, model, bits=4), device='cpu')
    assert not loaded.training
    assert cfg.work_dir == str(tmp_path / 'work')
    for ours, saved in zip(raw_outputs(loaded, make_batch()), raw_outputs(model, make_batch())):
        torch.testing.assert_close(ours, saved, rtol=0, atol=0)


def test_config_options_reach_the_model(tmp_path, data):
    config, _ = write(tmp_path, data, build(model_cfg()))
    _, model = build_detector(config, {'model.bbox_head.num_classes': 7})
    assert model.bbox_head.num_classes == 7 and not model.training


def test_intervals_that_a_float_checkpoint_lacks_are_started(tmp_path, data):
    config, checkpoint = write(tmp_path, data, build(model_cfg()), bits=4)
    cfg, model = load_detector(config, checkpoint, device='cpu')
    assert is_float_checkpoint(checkpoint)
    with pytest.raises(UninitializedIntervalError):
        raw_outputs(model, make_batch())
    quantizers = [m for m in model.modules() if hasattr(m, 'initialized')]
    assert initialize_intervals(cfg, model) == len(quantizers)
    assert all(torch.isfinite(out).all() for out in raw_outputs(model, make_batch()))
    assert initialize_intervals(cfg, model) == 0


def test_low_bit_checkpoint_is_no_float_one(tmp_path, data):
    _, checkpoint = write(tmp_path, data, build_calibrated(bits=2), bits=2)
    assert not is_float_checkpoint(checkpoint)


def test_batches_are_the_same_at_every_call(data, tmp_path):
    cfg = run_cfg(data, tmp_path)
    cfg.train_dataloader.sampler.shuffle = True
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='RandomFlip', prob=0.5))
    first, second = (list(iterate_batches(cfg)) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(one['inputs'], other['inputs']))


def test_number_of_batches(data, tmp_path):
    assert len(list(iterate_batches(run_cfg(data, tmp_path), 'test', 2))) == 2


def test_wrong_splits_and_numbers_are_refused(data, tmp_path):
    cfg = run_cfg(data, tmp_path)
    with pytest.raises(ValueError, match='at least 1.*got 0'):
        next(iterate_batches(cfg, num_batches=0))
    cfg.val_dataloader = None
    with pytest.raises(ValueError, match='no val_dataloader'):
        next(iterate_batches(cfg, 'val'))


def test_missing_data_are_named(tmp_path):
    cfg = run_cfg(tmp_path / 'nowhere', tmp_path)
    with pytest.raises(FileNotFoundError, match='train_dataloader.dataset.ann_file'):
        next(iterate_batches(cfg))
