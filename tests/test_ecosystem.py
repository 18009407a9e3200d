"""What else handles models, on fresh, calibrated and trained ones: docs/ecosystem.md."""
from __future__ import annotations

import io
import pickle
import runpy
import subprocess
import sys
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from torch import Tensor, nn

from mmaqd.engine import launch
from mmaqd.layers import MultiLevelModule, NoLevelError
from mmaqd.quantizers import UninitializedIntervalError
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import build, build_calibrated, loss, make_batch, model_cfg

TOOLS = Path(find_spec('mmdet').submodule_search_locations[0]) / '.mim' / 'tools'


def trained() -> nn.Module:
    model = build_calibrated().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss(model, make_batch()).backward()
    optimizer.step()
    return model


MODELS = dict(
    fresh=lambda: build(model_cfg('RetinaNet', 4)), calibrated=build_calibrated, trained=trained)
READY = {name: MODELS[name] for name in ('calibrated', 'trained')}


class Maps(nn.Module):
    """A detector that gives its maps as a flat tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(each for kind in self.model(images, mode='tensor') for each in kind)


@pytest.mark.parametrize('make', MODELS.values(), ids=MODELS)
@pytest.mark.parametrize('training', [True, False])
def test_every_attribute_can_be_asked_for(make, training):
    """As torch.jit.trace and inspect do."""
    for module in make().train(training).modules():
        for name in dir(module):
            hasattr(module, name)


def test_the_words_of_an_attribute_that_is_not_there_are_kept():
    model = MODELS['fresh']()
    quantizer = model.backbone.conv1.weight_quantizer
    assert not hasattr(quantizer, 'kernel_parameters')
    with pytest.raises(
            UninitializedIntervalError, match='conv1.weight_quantizer: the interval was'):
        quantizer.kernel_parameters
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        quantizer.no_such
    norm = next(each for each in model.modules() if isinstance(each, MultiLevelModule))
    assert not hasattr(norm, 'current')
    with pytest.raises(NoLevelError, match='without a pyramid level'):
        norm.current


@pytest.mark.parametrize('make', MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    'copy', [deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=['deepcopy', 'pickle'])
def test_copies_are_equal_and_train(make, copy):
    model = make()
    twin = copy(model)
    assert type(twin) is type(model)
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in twin.state_dict().items())


@pytest.mark.parametrize('make', READY.values(), ids=READY)
@pytest.mark.parametrize('grad', [True, False])
def test_a_trace_computes_the_same_after_saving(make, grad):
    maps = Maps(make().eval())
    images = torch.rand(1, 3, 64, 64) * 255 - 110
    with torch.set_grad_enabled(grad):
        file = io.BytesIO()
        torch.jit.save(torch.jit.trace(maps, images, check_trace=False), file)
        file.seek(0)
        other = images.flip(2)
        for found, wanted in zip(torch.jit.load(file)(other), maps(other)):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_trace_of_a_fresh_model_names_our_counter():
    with pytest.raises(UninitializedIntervalError, match='report size CONFIG, which needs no i'):
        torch.jit.trace(Maps(MODELS['fresh']().eval()), torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize('make', READY.values(), ids=READY)
def test_the_flops_counter_counts_what_it_counts_in_float(make):
    counted = []
    for model in (make().eval(), build(model_cfg('RetinaNet')).eval()):
        data = model.data_preprocessor(make_batch())
        model.forward = partial(model.forward, data_samples=data['data_samples'])
        info = get_model_complexity_info(
            model, None, inputs=data['inputs'], show_table=False, show_arch=False)
        counted.append(info['flops'])
    # The quantizers' own operations come on top.
    assert counted[1] <= counted[0] < 1.1 * counted[1]


@pytest.mark.slow
@pytest.mark.parametrize('make', READY.values(), ids=READY)
def test_a_model_compiles_before_its_first_eager_pass(make):
    torch._dynamo.reset()
    model, images = make().train(), torch.rand(2, 3, 64, 64) * 255 - 110
    outputs = torch.compile(Maps(deepcopy(model)), backend='aot_eager')(images)
    sum(each.sum() for each in outputs).backward()
    for found, wanted in zip(outputs, Maps(model)(images)):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def train_once(root: Path, **options: object) -> tuple[str, Path]:
    """Path of the config of a low-bit run, which was trained, and its work dir."""
    cfg = run_cfg(make_coco(root / 'data'), root / 'work', bits=4)
    cfg.merge_from_dict(options)
    cfg.dump(root / 'config.py')
    launch.train(str(root / 'config.py'))
    return str(root / 'config.py'), root / 'work'


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[str, Path]:
    return train_once(tmp_path_factory.mktemp('run'))


@pytest.mark.slow
def test_mmengine_compiles_a_training(tmp_path):
    torch._dynamo.reset()
    work = train_once(tmp_path, compile=dict(backend='aot_eager'))[1]
    saved = torch.load(work / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(bool(torch.isfinite(value).all()) for value in saved.values())
    assert not any('_orig_mod' in key for key in saved)


@pytest.fixture
def upstream(monkeypatch) -> Callable[..., None]:
    """Runs one of MMDetection's own tools."""

    def call(tool: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(TOOLS / tool), run_name='__main__')

    return call


class WaitedFor(subprocess.Popen):

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.wait()


def test_a_published_checkpoint_is_tested(run, tmp_path, monkeypatch, upstream):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.setattr(subprocess, 'Popen', WaitedFor)  # it renames its file in the background
    upstream('model_converters/publish_model.py', run[1] / 'epoch_1.pth',
             tmp_path / 'published.pth')
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    published = next(path for path in tmp_path.glob('*.pth'))
    assert launch.test(run[0], str(published), str(tmp_path / 'test'))


def test_get_flops_loads_no_checkpoint_and_names_our_counter(run, upstream):
    with pytest.raises(UninitializedIntervalError, match='mmaqd report size CONFIG, .*no interval'):
        upstream('analysis_tools/get_flops.py', run[0], '--num-images', 1)


def test_get_flops_counts_a_float_twin_with_multi_level_norms(run, tmp_path, upstream, capsys):
    run_cfg(run[1].parent / 'data', tmp_path / 'work').dump(tmp_path / 'float.py')
    upstream('analysis_tools/get_flops.py', tmp_path / 'float.py', '--num-images', 1)
    assert 'Flops: ' in capsys.readouterr().out


def test_browse_dataset_draws_the_training_images(run, tmp_path, upstream):
    upstream('analysis_tools/browse_dataset.py', run[0], '--not-show', '--output-dir', tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f'{n}.png' for n in range(4)]


def test_confusion_matrix_takes_our_predictions(run, tmp_path, upstream):
    predictions = tmp_path / 'predictions.pkl'
    launch.test(run[0], str(run[1] / 'epoch_1.pth'), str(tmp_path / 'test'), str(predictions))
    upstream('analysis_tools/confusion_matrix.py', run[0], predictions, tmp_path)
    assert (tmp_path / 'confusion_matrix.png').stat().st_size > 1000


@pytest.mark.parametrize('log', ['2*.json', 'scalars.json'])
def test_analyze_logs_reads_a_log_with_intervals_in_it(run, tmp_path, monkeypatch, upstream, log,
                                                       capsys):
    if find_spec('seaborn') is None:  # which the tool uses for the look alone
        monkeypatch.setitem(sys.modules, 'seaborn', SimpleNamespace(set_style=lambda style: None))
    path, = run[1].glob(f'*/vis_data/{log}')
    upstream('analysis_tools/analyze_logs.py', 'plot_curve', path, '--keys', 'loss_cls', 'bbox_mAP',
             '--out', tmp_path / 'curve.png')
    upstream('analysis_tools/analyze_logs.py', 'cal_train_time', path)
    assert (tmp_path / 'curve.png').stat().st_size > 1000
    assert 'average iter time' in capsys.readouterr().out


@pytest.mark.parametrize('key, value', [
    ('model_wrapper_cfg', 'MMFullyShardedDataParallel'),
    ('strategy', 'FSDPStrategy'),
    ('strategy', 'DeepSpeedStrategy'),
])
def test_sharding_is_refused_in_a_sentence(tmp_path, key, value):
    cfg = run_cfg(tmp_path, tmp_path / 'work', bits=4)
    cfg[key] = dict(type=value)
    with pytest.raises(ValueError, match=f'{key}: {value} cuts .*DistributedDataParallel'):
        launch.build_runner(Config(dict(cfg, launcher='none')))


def test_frozen_stages_are_said(tmp_path):
    cfg = run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work', bits=4)
    cfg.model.backbone.frozen_stages = 1
    cfg.model.quantization.weight_quantizer.normalize = False
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / 'config.py')
    runner = launch.train(str(tmp_path / 'config.py'))
    log, = (tmp_path / 'work').glob('*/*.log')
    assert 'of them, backbone.conv1.weight_quantizer the first, belong to frozen' in log.read_text()
    assert not runner.model.backbone.conv1.weight_quantizer.interval.requires_grad
