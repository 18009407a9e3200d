"""A packed detector: evaluates as its checkpoint in every tool, and is not trained unasked."""
from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmaqd.checkpoints import CheckpointMismatchError
from mmaqd.export import Captured, capture, pack_checkpoint, store_codes
from mmaqd.functional.operators import kernel_from_text
from mmaqd.quantizers import PackedWeightsError, UninitializedIntervalError
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import (LEVELS, build, build_calibrated, make_batch, model_cfg,
                                    raw_outputs)
from tests.helpers.golden import BATCH, golden_cfg, golden_state
from tests.helpers.networks import calibrated, image
from tests.helpers.runs import differences, make_runner, train

pytest.importorskip('safetensors')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A data set, the config of a run, the checkpoint of a 3-bit detector, and it packed."""
    root = tmp_path_factory.mktemp('packed')
    make_coco(root / 'data')
    cfg = run_cfg(root / 'data', root / 'work', bits=3)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', save_best=None, interval=-1)
    cfg.dump(root / 'config.py')
    torch.save(dict(state_dict=build_calibrated(bits=3).state_dict(), meta={}), root / 'low.pth')
    pack_checkpoint(str(root / 'config.py'), str(root / 'low.pth'), str(root / 'low.safetensors'))
    return root


def config(folder: Path, work_dir: Path) -> Config:
    cfg = Config.fromfile(folder / 'config.py')
    cfg.work_dir = str(work_dir)
    return cfg


def test_a_detector_with_every_family_evaluates_as_before(tmp_path):
    model = build(golden_cfg(), seed=1).eval()
    model.load_state_dict(golden_state())
    cfg = Config(dict(model=golden_cfg(), default_scope='mmdet'))
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'low.pth')
    out = str(tmp_path / 'low.safetensors')
    pack_checkpoint(str(tmp_path / 'config.py'), str(tmp_path / 'low.pth'), out)
    twin = build(golden_cfg(), seed=2).eval()
    load_checkpoint(twin, out)
    batch = make_batch(boxes=False, **BATCH)
    assert not differences(raw_outputs(model, batch), raw_outputs(twin, batch))


def test_what_was_written_is_said(folder, caplog, tmp_path):
    out = str(tmp_path / 'new' / 'low.safetensors')
    packed = pack_checkpoint(str(folder / 'config.py'), str(folder / 'low.pth'), out)
    content = Path(out).read_bytes()
    assert packed.num_bytes == len(content)
    assert content == (folder / 'low.safetensors').read_bytes()
    floats = build(model_cfg()).state_dict().values()
    assert packed.float_bytes == sum(each.numel() * each.element_size() for each in floats)
    assert f'1/{packed.ratio:.1f} of the float weights' in str(packed)


def test_the_weights_take_their_bits():
    from mmaqd.checkpoints import pack_state
    model = build_calibrated(bits=3).eval()
    layouts = store_codes(model)
    state = model.state_dict()
    weights = {key: value for key, value in state.items() if key in layouts}
    bits = sum(value.numel() * layouts[key].grid.bit_width for key, value in weights.items())
    rest = sum(value.numel() * value.element_size() for key, value in state.items()
               if key not in layouts)  # yapf: disable
    content = pack_state(state, layouts, {})
    data = len(content) - 8 - int.from_bytes(content[:8], 'little')
    assert bits / 8 <= data - rest < bits / 8 + len(layouts)


def test_init_detector_and_inferencer(folder):
    picture = np.random.default_rng(0).integers(0, 256, (50, 64, 3), dtype=np.uint8)
    results = []
    for name in ('low.pth', 'low.safetensors'):
        path = str(folder / name)
        model = init_detector(str(folder / 'config.py'), path, device='cpu', palette='random')
        found = inference_detector(model, picture).pred_instances
        inferencer = DetInferencer(str(folder / 'config.py'), path, device='cpu', palette='random')
        results.append([dict(found.items()), inferencer(picture)['predictions'][0]])
    assert len(results[0][0]['scores']) and not differences(*results)


def test_the_runner_tests_it(folder, tmp_path):
    metrics = [
        make_runner(config(folder, tmp_path), load_from=str(folder / name)).test()
        for name in ('low.pth', 'low.safetensors')
    ]
    assert metrics[0] == metrics[1]


def test_training_from_it_is_refused(folder, tmp_path):
    with pytest.raises(PackedWeightsError, match='backbone.conv1.*TrainPackedHook'):
        train(config(folder, tmp_path), load_from=str(folder / 'low.safetensors'))


def test_training_from_it_if_asked_for(folder, tmp_path):
    cfg = config(folder, tmp_path)
    cfg.custom_hooks.append(dict(type='mmaqd.TrainPackedHook'))
    metrics = make_runner(cfg, load_from=str(folder / 'low.safetensors')).test()
    assert metrics == make_runner(cfg, load_from=str(folder / 'low.pth')).test()
    runner = train(cfg, load_from=str(folder / 'low.safetensors'))
    assert not [key for key in runner.model.state_dict() if 'stored_scale' in key]


def test_resuming_from_it_is_refused(folder, tmp_path):
    cfg = config(folder, tmp_path)
    cfg.custom_hooks.append(dict(type='mmaqd.TrainPackedHook'))
    runner = make_runner(cfg, load_from=str(folder / 'low.safetensors'), resume=True)
    with pytest.raises(PackedWeightsError, match='packed file'):
        runner.train()


def test_other_bits_from_it_are_refused(folder, tmp_path):
    cfg = run_cfg(folder / 'data', tmp_path, bits=2)
    cfg.custom_hooks.insert(0, dict(type='mmaqd.ChangeBitsHook'))
    path = str(folder / 'low.safetensors')
    with pytest.raises(PackedWeightsError, match='packed file'):
        train(cfg, load_from=path)
    cfg.custom_hooks.append(dict(type='mmaqd.TrainPackedHook'))
    train(cfg, load_from=path)


@pytest.mark.parametrize('other', [model_cfg(), model_cfg(bits=4), model_cfg('FCOS', 3)])
def test_other_models_refuse_it(folder, other):
    with pytest.raises(CheckpointMismatchError, match='low.safetensors'):
        load_checkpoint(build(other), str(folder / 'low.safetensors'))


def test_saved_again_it_is_what_it_was(folder, tmp_path):
    model = build(model_cfg(bits=3)).eval()
    load_checkpoint(model, str(folder / 'low.safetensors'))
    torch.save(model.state_dict(), tmp_path / 'again.pth')
    pack_checkpoint(
        str(folder / 'config.py'), str(tmp_path / 'again.pth'), str(tmp_path / 'a.safetensors'))
    twin = build(model_cfg(bits=3), seed=3).eval()
    load_checkpoint(twin, str(tmp_path / 'a.safetensors'))
    assert not differences(model.state_dict(), twin.state_dict())


def test_a_whole_checkpoint_loads_over_it(folder):
    model = build(model_cfg(bits=3), seed=4)
    load_checkpoint(model, str(folder / 'low.safetensors'))
    state = torch.load(folder / 'low.pth', weights_only=True)['state_dict']
    load_checkpoint(model, str(folder / 'low.pth'))
    assert not differences(dict(model.state_dict()), dict(state))


def test_export_sees_the_codes():
    model = calibrated(build(model_cfg(bits=4)), image(0, 64, 64)).eval()
    stored = copy.deepcopy(model)
    store_codes(stored)
    found = [codes_of(capture(each, 64, 64)) for each in (model, stored)]
    assert len(found[0]) > LEVELS and not differences(*found)


def codes_of(captured: Captured) -> list[torch.Tensor]:
    """The codes and scales of the weights of each conv of a captured graph."""
    results = []
    for node in captured.graph.nodes:
        if 'quant_conv2d' in str(node.target):
            kernel = kernel_from_text(node.args[6])
            weight, *parameters = (
                captured.tensors[each.name] for each in (node.args[1], *node.args[4]))
            results += [
                kernel.codes(weight, *parameters),
                torch.as_tensor(kernel.scale(*parameters))
            ]
    return results


@pytest.mark.parametrize('out', ['low.pth', 'low'])
def test_another_extension(folder, out):
    with pytest.raises(ValueError, match='ends in .safetensors'):
        pack_checkpoint('no config', 'no checkpoint', str(folder / out))


def test_an_output_that_is_a_folder(tmp_path):
    (tmp_path / 'a.safetensors').mkdir()
    with pytest.raises(PermissionError, match='can\'t be written'):
        pack_checkpoint('no config', 'no checkpoint', str(tmp_path / 'a.safetensors'))


def test_without_intervals(folder, tmp_path):
    torch.save(build(model_cfg()).state_dict(), tmp_path / 'float.pth')
    out = tmp_path / 'a.safetensors'
    with pytest.raises(UninitializedIntervalError, match='backbone.conv1.*no codes to pack'):
        pack_checkpoint(str(folder / 'config.py'), str(tmp_path / 'float.pth'), str(out))
    assert not out.exists()


def test_a_float_model():
    with pytest.raises(ValueError, match='no quantized weights'):
        store_codes(build(model_cfg()))


def test_a_weight_of_two_layers():
    model = build_calibrated(bits=3)
    first, second = model.backbone.layer1[0].conv1, model.backbone.layer1[1].conv1
    second.weight = first.weight
    with pytest.raises(ValueError, match='layer1.0.conv1 and .*layer1.1.conv1 have one weight'):
        store_codes(model)
