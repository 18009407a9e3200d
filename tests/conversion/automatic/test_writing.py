"""The text of configs, without building a detector."""
from __future__ import annotations

import pytest
from mmengine.config import Config

from mmaqd.conversion.automatic.plan import METHODS, Plan, Rule
from mmaqd.conversion.automatic.upstream import Upstream
from mmaqd.conversion.automatic.writing import config_text


def written(tmp_path, rules=(), notes=(), options=None, **content) -> tuple[str, Config]:
    """The text for a made-up detector, and what it says as a config."""
    base = tmp_path / 'base.py'
    content = {'model': dict(type='RetinaNet', neck=dict(num_outs=5)), **content}
    Config(content).dump(base)
    cfg = Config.fromfile(base)
    cfg.merge_from_dict(options or {})
    upstream = Upstream(str(base), 'base', cfg, options or {})
    plan = Plan(
        dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        dict(type='mmaqd.LIQActivationQuantizer', bit_width=4), tuple(notes), tuple(rules))
    text = config_text(upstream, plan, 4, METHODS['liq'])
    path = tmp_path / 'low.py'
    path.write_text(text)
    new = Config.fromfile(path)
    assert new.model.quantization == plan.block
    return text, new


def test_the_block_and_reasons(tmp_path):
    rule = Rule('Because.', 'some', dict(input_quantizer=dict(signed=True)), ('a.*', ), count=3)
    text, cfg = written(tmp_path, [rule], ['Most are so.'])
    assert '# Because.\n' in text and '# Most are so.\n' in text
    assert cfg.model.detector == 'RetinaNet' and cfg.model.neck.num_outs == 5
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize('number', [3, 4, 9])
def test_many_patterns_are_written_once(tmp_path, number):
    patterns = tuple(f'layer{i}.x' for i in range(number))
    change = dict(weight_quantizer=dict(normalize=False))
    text, cfg = written(tmp_path, [Rule('So.', 'some', change, patterns, count=number)])
    assert len(cfg.model.quantization.rules) == number
    assert text.count('normalize=False') == (number if number <= 3 else 1)


def test_types_and_none(tmp_path):
    change = dict(weight_quantizer=None, input_quantizer=None)
    rule = Rule('So.', 'some', change, module_types=('Linear', 'Embedding'), count=2)
    _, cfg = written(tmp_path, [rule])
    assert cfg.model.quantization.rules == [
        dict(module_type=['Linear', 'Embedding'], weight_quantizer=None, input_quantizer=None)
    ]


def test_without_hooks_there_is_ours_alone(tmp_path):
    _, cfg = written(tmp_path)
    assert cfg.custom_hooks == [dict(type='mmaqd.InitializeIntervalsHook')]


def test_hooks_of_the_base_follow_it(tmp_path):
    text, cfg = written(tmp_path, custom_hooks=[dict(type='EMAHook', momentum=1e-4)])
    assert '*_base_.custom_hooks' in text and 'EMAHook averages' in text
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'mmaqd.InitializeIntervalsHook']


def test_options_become_part_of_it(tmp_path):
    options = {
        'model.neck.num_outs': 3,
        'model.type': 'FCOS',
        'work_dir': 'here',
        'steps.1.by': [(1, ), None],
        'custom_hooks.0.interval': 2
    }
    text, cfg = written(
        tmp_path,
        options=options,
        steps=[dict(by=1), dict(by=[2, 3], rest=True)],
        custom_hooks=[dict(type='EMAHook')])
    assert cfg.model.neck.num_outs == 3 and cfg.model.detector == 'FCOS' and cfg.work_dir == 'here'
    assert cfg.steps == [dict(by=1), dict(by=[(1, ), None], rest=True)]
    assert cfg.custom_hooks[0] == dict(type='EMAHook', interval=2) and len(cfg.custom_hooks) == 2


@pytest.mark.parametrize('loop, name', [
    (dict(type='EpochBasedTrainLoop', max_epochs=36), 'epoch_36'),
    (dict(type='IterBasedTrainLoop', max_iters=90000), 'iter_90000'),
    (None, 'epoch_12'),
])
def test_the_checkpoint_to_start_from_is_only_named(tmp_path, loop, name):
    text, cfg = written(tmp_path, **(dict(train_cfg=loop) if loop else {}))
    assert f"# load_from = 'work_dirs/base/{name}.pth'" in text and cfg.get('load_from') is None


def test_low_bits_are_not_trained_in_the_folder_of_the_float_model(tmp_path):
    text, cfg = written(tmp_path, work_dir='runs/float/')
    assert cfg.work_dir == 'runs/float_low_bit'
    assert "# load_from = 'runs/float/epoch_12.pth'" in text
    assert 'work_dir =' not in written(tmp_path)[0]
