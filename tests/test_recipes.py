"""The configs of docs/recipes.md, as they are printed there, in whole runs."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest
import torch
from mmengine.config import Config
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.engine.launch import set_resume
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import model_cfg
from tests.helpers.runs import checkpoint, differences, make_runner, scalars, train

DOCUMENT = Path(__file__).resolve().parents[1] / 'docs' / 'recipes.md'
SECTIONS = ('Distillation', 'Re-estimated BN', 'Learning rate', 'Progressive bits',
            'Weights that keep their mean', 'An interval for each level')


@pytest.fixture(autouse=True, scope='module')
def one_thread() -> Iterator[None]:
    """Sums of floats must not depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('recipes') / 'data', num_images=4)


@pytest.fixture(scope='module')
def checkpoints(data, tmp_path_factory) -> dict[str, str]:
    """The checkpoints that the document names, and those of the tests."""
    work_dir = tmp_path_factory.mktemp('float')
    train(run_cfg(data, work_dir))
    paths = {'work_dirs/float/epoch_12.pth': str(work_dir / 'epoch_1.pth')}
    cfg = run_cfg(data, tmp_path_factory.mktemp('w4a4'), bits=4)
    cfg.load_from = paths['work_dirs/float/epoch_12.pth']
    train(cfg)
    paths['work_dirs/w4a4/epoch_6.pth'] = str(Path(cfg.work_dir) / 'epoch_1.pth')
    return paths


def recipe(section: str, checkpoints: dict[str, str]) -> Config:
    """The block of code of a section."""
    text = DOCUMENT.read_text().split(f'\n## {section}', 1)[1].split('\n## ', 1)[0]
    code, = re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)
    for named, real in checkpoints.items():
        code = code.replace(named, real)
    assert 'work_dirs' not in code
    return Config.fromstring(code, '.py')


def make_cfg(data: Path, work_dir: Path, checkpoints: dict[str, str], *sections: str) -> Config:
    """A 2-bit run with the recipes of some sections."""
    cfg = run_cfg(data, work_dir, bits=2, epochs=2)
    cfg.load_from = checkpoints['work_dirs/float/epoch_12.pth']
    cfg.optim_wrapper.optimizer.weight_decay = 1e-4
    hooks = list(cfg.custom_hooks)
    for section in sections:
        part = recipe(section, checkpoints)
        hooks += [hook for hook in part.pop('custom_hooks', []) if hook not in hooks]
        cfg.merge_from_dict(part.to_dict())
    cfg.custom_hooks = hooks
    return cfg


@pytest.fixture(scope='module')
def plain(data, checkpoints, tmp_path_factory) -> dict:
    """The checkpoint of a run without any recipe."""
    work_dir = tmp_path_factory.mktemp('plain')
    train(make_cfg(data, work_dir, checkpoints))
    return checkpoint(work_dir, 2)


def test_every_section_with_code_is_tested():
    _, *sections = DOCUMENT.read_text().split('\n## ')
    with_code = [section.split('\n')[0] for section in sections if '```python' in section]
    assert len(with_code) == len(SECTIONS)
    assert all(title.startswith(SECTIONS) for title in with_code)


def test_all_recipes_together_train_validate_and_resume_exactly(data, checkpoints, tmp_path):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    cfg = make_cfg(data, whole, checkpoints, *SECTIONS)
    # Drawn in the main process, where the teacher is built as well.
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
    train(cfg)
    cfg.work_dir = str(resumed)
    set_resume(cfg, str(whole / 'epoch_1.pth'))
    train(cfg)
    one, other = checkpoint(whole, 2), checkpoint(resumed, 2)
    assert [differences(one[key], other[key]) for key in ('state_dict', 'optimizer')] == [[], []]
    records = scalars(whole)
    assert {'loss_distill_neck', 'loss_distill_cls', 'loss_distill_reg'} <= records[0].keys()
    assert any('coco/bbox_mAP' in record for record in records)


def test_distillation_leaves_checkpoint_and_optimizer_as_they_are(plain, data, checkpoints,
                                                                  tmp_path):
    train(make_cfg(data, tmp_path, checkpoints, 'Distillation'))
    saved = checkpoint(tmp_path, 2)
    assert saved.keys() == plain.keys()
    assert saved['state_dict'].keys() == plain['state_dict'].keys()
    groups, expected = (each['optimizer']['param_groups'] for each in (saved, plain))
    assert groups == expected
    assert not torch.equal(saved['state_dict']['backbone.conv1.weight'],
                           plain['state_dict']['backbone.conv1.weight'])


def test_a_distilled_checkpoint_is_tested_without_the_teacher(data, checkpoints, tmp_path):
    cfg = make_cfg(data, tmp_path, checkpoints, 'Distillation')
    train(cfg)
    path = str(tmp_path / 'epoch_2.pth')
    cfg.model.distillation.checkpoint = 'no/such.pth'
    with_block = make_runner(cfg, load_from=path, work_dir=str(tmp_path / 'a')).test()
    cfg.model.distillation = None
    assert make_runner(cfg, load_from=path, work_dir=str(tmp_path / 'b')).test() == with_block


def test_re_estimated_statistics_are_those_that_are_saved(plain, data, checkpoints, tmp_path):
    """The last weights are the same with and without the hook; the statistics are not."""
    train(make_cfg(data, tmp_path, checkpoints, 'Re-estimated BN'))
    found = differences(checkpoint(tmp_path, 2)['state_dict'], plain['state_dict'])
    assert {key.rsplit('.', 1)[1] for key in found} == {'running_mean', 'running_var'}


def test_groups_of_the_optimizer(data, checkpoints, tmp_path):
    runner = make_runner(make_cfg(data, tmp_path, checkpoints, 'Learning rate'))
    groups = runner.build_optim_wrapper(runner.cfg.optim_wrapper).optimizer.param_groups
    found = {
        id(each): (group['lr'], group['weight_decay'])
        for group in groups
        for each in group['params']
    }
    norms = {
        id(parameter)
        for module in runner.model.modules() if isinstance(module, _BatchNorm)
        for parameter in module.parameters()
    }
    lr, decay = 0.01, 1e-4
    kinds = set()
    for name, parameter in runner.model.named_parameters():
        expected = (lr, decay)
        if name.endswith('input_quantizer.interval'):
            expected = (lr * 0.1, 0.0)
        elif name.endswith('weight_quantizer.interval') or id(parameter) in norms:
            expected = (lr, 0.0)
        assert found[id(parameter)] == pytest.approx(expected), name
        kinds.add(expected)
    assert len(kinds) == 3


@pytest.mark.parametrize('family, names', [
    ('LSQ', {'weight_quantizer.step_size', 'input_quantizer.step_size'}),
    ('LSQPlus',
     {'weight_quantizer.step_size', 'input_quantizer.step_size', 'input_quantizer.offset'}),
    ('PACT', {'weight_quantizer.interval', 'input_quantizer.alpha'}),
])
def test_names_of_learned_values(family, names, data, tmp_path):
    cfg = run_cfg(data, tmp_path)
    cfg.model = model_cfg('RetinaNet', 2)
    block = cfg.model.quantization
    block.input_quantizer.type = f'mmaqd.{family}ActivationQuantizer'
    if family != 'PACT':
        block.weight_quantizer.type = f'mmaqd.{family}WeightQuantizer'
        block.rules = [dict(pattern='*', weight_quantizer=dict(bit_width=4))]
    model = make_runner(cfg).model
    learned = {
        '.'.join(name.split('.')[-2:])
        for name, _ in model.named_parameters() if '_quantizer.' in name
    }
    assert learned == names
    table = DOCUMENT.read_text()
    assert all(f'`{name}`' in table for name in learned)


def test_weights_that_keep_their_mean(data, checkpoints, tmp_path):
    cfg = make_cfg(data, tmp_path, checkpoints, 'Weights that keep their mean')
    train(cfg)
    state = checkpoint(tmp_path, 2)['state_dict']
    found = [int(value) for key, value in state.items() if key.endswith('.normalization')]
    # The first conv and the two prediction convs have no BN that would make up for the scale.
    assert sorted(found) == [0] * 3 + [1] * (len(found) - 3) and len(found) > 20


def test_an_interval_for_each_level(data, checkpoints, tmp_path):
    cfg = make_cfg(data, tmp_path, checkpoints, 'An interval for each level')
    cfg.custom_hooks.append(dict(type='mmaqd.LogIntervalsHook', interval=1))
    train(cfg)
    state = checkpoint(tmp_path, 2)['state_dict']
    inner = 'bbox_head.cls_convs.0.conv.input_quantizer'
    intervals = [float(state[f'{inner}.{level}.interval']) for level in range(5)]
    assert len(set(intervals)) == 5
    logged = scalars(tmp_path)[-2]
    assert [logged[f'interval/{inner}.{level}'] for level in range(5)] == intervals
    assert {int(state[f'bbox_head.retina_{name}.input_quantizer.bits'])
            for name in ('cls', 'reg')} == {8}


@pytest.mark.parametrize('intervals', ['restart', 'keep'])
def test_two_bits_start_from_four(intervals, data, checkpoints, tmp_path):
    cfg = make_cfg(data, tmp_path, checkpoints, 'Progressive bits')
    for hook in cfg.custom_hooks:
        if hook['type'] == 'mmaqd.ChangeBitsHook':
            hook.intervals = intervals
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.optim_wrapper.optimizer.weight_decay = 0.0
    train(cfg)
    source = torch.load(cfg.load_from, weights_only=False)['state_dict']
    state = checkpoint(tmp_path, 2)['state_dict']
    weights = [key for key in source if key.endswith('.weight')]
    assert all(torch.equal(state[key], source[key]) for key in weights)
    inner = 'neck.fpn_convs.0.conv.input_quantizer'
    assert (int(source[f'{inner}.bits']), int(state[f'{inner}.bits'])) == (4, 2)
    kept = torch.equal(state[f'{inner}.interval'], source[f'{inner}.interval'])
    assert kept == (intervals == 'keep')
    first = 'backbone.conv1.weight_quantizer.interval'
    assert torch.equal(state[first], source[first])
