"""The config files: names, what low-bit configs change in their float twins, links, metafiles."""
from __future__ import annotations

import ast
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
EVERY = sorted(
    path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('*/*.py')
    if path.parent.name not in ('_base_', 'own_data'))  # tests/test_own_data.py
FOLDERS = ('retinanet', 'fcos', 'atss', 'gfl', 'vfnet', 'tood', 'paa', 'foveabox', 'rtmdet',
           'yolox')
COCO = [name for name in EVERY if name.split('/')[0] in FOLDERS]
TINY = [name for name in EVERY if '_tiny' in name]
PYRAMID = [name for name in EVERY if name not in TINY]
NAME = re.compile(r'(?P<detector>[a-z]+)_(tiny|r(?P<depth>18|34|50)(-c(?P<channels>\d+))?_fpn)'
                  r'(_(?P<norm>mlbn|bn|gn))?'
                  r'(?P<bits>-w(?P<w>[2-8])a(?P<a>[2-8])(-(?P<method>[a-z]+))?)?_'
                  r'((?P<gpus>\d+)xb(?P<batch>\d+)-)?(?P<schedule>[a-z0-9]+(-[0-9]+e)?)_'
                  r'(?P<data>[a-z0-9]+)\.py')
NORMS = {
    'mlbn': ('mmaqd.MultiLevelBN', 'mmaqd.MultiLevelSyncBN'),
    'bn': ('BN', ),
    'gn': ('GN', ),
    None: ('BN', 'SyncBN')  # upstream's structure
}
CLASSES = dict(
    retinanet='RetinaNet',
    fcos='FCOS',
    atss='ATSS',
    gfl='GFL',
    vfnet='VFNet',
    tood='TOOD',
    paa='PAA',
    fovea='FOVEA',
    rtmdet='RTMDet',
    yolox='YOLOX')


@lru_cache(maxsize=None)
def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def parse_name(name: str) -> dict[str, str]:
    match = NAME.fullmatch(Path(name).name)
    assert match, f'{name} does not follow the pattern of configs/README.md'
    return match.groupdict()


LOW_BIT = [name for name in EVERY if '-w' in name]
FLOAT = [name for name in EVERY if '-w' not in name]
TRAINED_ON = [name for name in FLOAT if '-12e-6e_' in name]


def twin_of(name: str) -> str:
    """The float config of the same detector, backbone and data; its schedule may be another."""
    free = ('bits', 'w', 'a', 'method', 'gpus', 'batch', 'schedule')
    same = {field: value for field, value in parse_name(name).items() if field not in free}
    twins = [
        twin for twin in FLOAT
        if twin not in TRAINED_ON and same.items() <= parse_name(twin).items()
    ]
    assert len(twins) == 1, f'{name} must have one float twin, but has {twins}'
    return twins[0]


def test_the_promised_configs_exist():
    bits = ['', '-w8a8', '-w4a4', '-w3a3', '-w2a2', '-w2a2-distill']
    promised = {
        f'{detector}/{detector}_r{depth}_fpn_mlbn{b}_1x_coco.py'
        for detector in ('retinanet', 'fcos')
        for depth in (18, 34, 50)
        for b in bits
    }
    heads = dict(atss='atss', gfl='gfl', vfnet='vfnet', tood='tood', paa='paa', foveabox='fovea')
    promised |= {
        f'{folder}/{head}_r18_fpn_mlbn{b}_{"4xb4-" * (head == "fovea")}1x_coco.py'
        for folder, head in heads.items()
        for b in ('', '-w4a4')
    }
    promised |= {
        f'{detector}/{detector}_tiny{bits}_{batch}-{epochs}e_coco.py'
        for detector, batch in (('rtmdet', '8xb32'), ('yolox', '8xb8'))
        for bits, epochs in (('', 300), ('-w8a8', 30), ('-w4a4', 30))
    }
    assert set(COCO) == promised


@pytest.mark.parametrize('name', EVERY)
def test_name_tells_the_batch_where_it_is_not_8xb2(name):
    if name.startswith('demo/'):
        return
    fields, config = parse_name(name), load(name)
    gpus, batch = int(fields['gpus'] or 8), int(fields['batch'] or 2)
    assert (fields['gpus'], fields['batch']) != ('8', '2')
    assert config.train_dataloader.batch_size == batch
    if 'auto_scale_lr' in config:
        assert config.auto_scale_lr.base_batch_size == gpus * batch


@pytest.mark.parametrize('name', EVERY)
def test_name_says_what_the_config_is(name):
    fields, config = parse_name(name), load(name)
    model = config.model
    if fields['depth'] is None:
        assert model.backbone.widen_factor == 0.375  # MMDetection's tiny
    else:
        assert model.backbone.depth == int(fields['depth'])
    if fields['channels'] is not None:
        assert model.backbone.base_channels == int(fields['channels'])
    assert model.bbox_head.norm_cfg.type in NORMS[fields['norm']]
    if fields['bits'] is None:
        assert model.type == CLASSES[fields['detector']]
        assert 'quantization' not in model
        return
    assert model.type == 'mmaqd.QuantizedDetector'
    assert model.detector == CLASSES[fields['detector']]
    assert model.quantization.weight_quantizer.bit_width == int(fields['w'])
    assert model.quantization.input_quantizer.bit_width == int(fields['a'])


@pytest.mark.parametrize('name', PYRAMID)
def test_full_bn_structure(name):
    model = load(name).model
    assert all(float(mean).is_integer() for mean in model.data_preprocessor.mean)
    assert set(model.data_preprocessor.std) == {1}
    assert model.data_preprocessor.bgr_to_rgb is True
    assert model.backbone.get('frozen_stages', -1) == -1
    assert model.backbone.norm_eval is False
    assert model.backbone.norm_cfg.requires_grad is True
    assert model.neck.norm_cfg.type == model.backbone.norm_cfg.type
    assert model.neck.act_cfg == dict(type='ReLU')
    if parse_name(name)['norm'] == 'mlbn':
        assert model.bbox_head.norm_cfg.num_levels == model.neck.num_outs


@pytest.mark.parametrize('name', TINY)
def test_the_first_conv_of_a_tiny_model_sees_integers(name):
    model = load(name).model
    assert all(float(mean).is_integer() for mean in model.data_preprocessor.get('mean', [0]))
    assert set(model.data_preprocessor.get('std', [1])) == {1}
    assert not model.data_preprocessor.get('bgr_to_rgb', False)
    assert model.neck.act_cfg.type in ('SiLU', 'Swish')


@pytest.mark.parametrize('name', EVERY)
def test_resume_is_exact_by_config(name):
    config = load(name)
    assert config.default_scope == 'mmdet'
    assert config.custom_imports == dict(imports=['mmaqd'], allow_failed_imports=False)
    assert 'mmaqd.EpochSeedHook' in [hook.type for hook in config.custom_hooks]
    assert config.train_dataloader.worker_init_fn == dict(type='mmaqd.seed_worker')
    assert config.train_dataloader.persistent_workers is False
    assert isinstance(config.randomness.seed, int)


@pytest.mark.parametrize('name', LOW_BIT)
def test_low_bit_model_is_its_float_twin_quantized(name):
    low, twin = load(name), load(twin_of(name))
    own = deepcopy(low.model)
    assert own.pop('type') == 'mmaqd.QuantizedDetector'
    assert own.pop('detector') == twin.model.type
    own.pop('quantization')
    own.pop('distillation', None)
    expected = deepcopy(twin.model)
    expected.pop('type')
    # load_from brings all weights of a low-bit model, so none are loaded into its backbone.
    own['backbone'].pop('init_cfg', None)
    expected['backbone'].pop('init_cfg', None)
    assert own == expected


@pytest.mark.parametrize('name', LOW_BIT)
def test_low_bit_config_starts_from_its_float_twin(name):
    is_progressive = parse_name(name)['method'] == 'progressive'
    start = name.replace('w2a2-progressive', 'w4a4') if is_progressive else twin_of(name)
    assert Path(load(name).load_from).parent == Path('work_dirs', Path(start).stem)
    hooks = {hook.type for hook in load(name).custom_hooks}
    assert 'mmaqd.InitializeIntervalsHook' in hooks
    assert ('mmaqd.ChangeBitsHook' in hooks) == is_progressive


@pytest.mark.parametrize('name', TRAINED_ON)
def test_float_models_train_on_as_the_low_bit_ones_do(name):
    own, before = load(name), load(name.replace('1xb2', '1xb8').replace('12e-6e', '12e'))
    low = load(name.replace('_1xb', '-w4a4_1xb').replace('12e-6e', '6e'))
    assert own.model == before.model
    for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader', 'load_from'):
        assert own[key] == low[key]


@pytest.mark.parametrize(
    'name', [name for name in LOW_BIT if '-distill_1xb' in name and '-c16' not in name])
def test_a_distilled_model_learns_from_a_float_model_of_as_many_epochs(name):
    teacher = re.sub(r'-w\da\d-distill', '', name).replace('6e', '12e-6e')
    assert teacher in TRAINED_ON
    expected = f'work_dirs/{Path(teacher).stem}/epoch_6.pth'
    assert load(name).model.distillation.checkpoint == expected


@pytest.mark.parametrize('name', [name for name in COCO if name in PYRAMID])
def test_recipe(name):
    config, bits = load(name), parse_name(name)['w']
    assert config.optim_wrapper.optimizer.type == 'SGD'
    assert config.optim_wrapper.optimizer.lr == {
        None: 0.01,
        '8': 0.002,
        '4': 0.002,
        '3': 0.001,
        '2': 0.001
    }[bits]
    assert config.auto_scale_lr.base_batch_size == 16
    assert config.train_cfg.max_epochs == 12
    assert config.model.data_preprocessor.mean == [124, 116, 104]
    init = config.model.backbone.init_cfg
    if bits is None:
        assert init.type == 'mmaqd.FoldInputStd'
        assert init.checkpoint == f'torchvision://resnet{config.model.backbone.depth}'
        assert init.std == [58.395, 57.12, 57.375]
    else:
        assert init is None
        assert config.load_from.endswith('/epoch_12.pth')
        assert [hook.type for hook in config.custom_hooks] == [
            'mmaqd.EpochSeedHook', 'mmaqd.InitializeIntervalsHook', 'mmaqd.LogIntervalsHook'
        ]


@pytest.mark.parametrize('name', [name for name in COCO if name in TINY and '-w' in name])
def test_recipe_of_a_tiny_model(name):
    low, twin = load(name), load(twin_of(name))
    ours = {'mmaqd.EpochSeedHook', 'mmaqd.InitializeIntervalsHook', 'mmaqd.LogIntervalsHook'}
    hooks = {hook.type for hook in low.custom_hooks}
    assert hooks == ours | {hook.type for hook in twin.custom_hooks}
    assert low.optim_wrapper.optimizer.lr == pytest.approx(twin.optim_wrapper.optimizer.lr / 5)
    assert low.train_cfg.max_epochs == low.param_scheduler[-1].end == 30
    assert low.auto_scale_lr == twin.auto_scale_lr
    assert low.model.backbone.get('init_cfg') is None
    if parse_name(name)['detector'] == 'rtmdet':
        hook, = (hook for hook in low.custom_hooks if hook.type == 'PipelineSwitchHook')
        assert hook.switch_epoch == 25 and 'Mosaic' not in str(hook.switch_pipeline)


def _bases(path: Path) -> list[str]:
    """The expressions of the `_base_` line, as written."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            items = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            return [ast.unparse(item) for item in items]
    return []


def _depth(path: Path) -> int:
    """How many of our own files stand above a config."""
    ours = [ast.literal_eval(base) for base in _bases(path) if base[0] in '\'"']
    return max((1 + _depth(path.parent / base) for base in ours), default=0)


@pytest.mark.parametrize('name', EVERY)
def test_inheritance_is_short_and_needs_no_pkg_resources(name):
    path = CONFIGS / name
    assert _depth(path) <= 4
    assert not [base for base in _bases(path) if '::' in base]


@pytest.mark.parametrize('name', [name for name in COCO if '-w' in name])
def test_low_bit_config_is_short(name):
    with_schedule = '-w8a8_8xb' in name and '-30e_' in name
    assert len((CONFIGS / name).read_text().splitlines()) <= (50 if with_schedule else 30)


@pytest.mark.parametrize('folder', FOLDERS)
def test_metafile_lists_every_config_with_its_float_model(folder):
    metafile = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())
    collections = {collection['Name'] for collection in metafile['Collections']}
    models = {model['Name']: model for model in metafile['Models']}
    names = [name for name in COCO if name.startswith(folder + '/')]
    assert sorted(models) == sorted(Path(name).stem for name in names)
    for name in names:
        model, bits = models[Path(name).stem], parse_name(name)['w']
        assert model['In Collection'] in collections
        assert model['Config'] == f'configs/{name}'
        assert model['Metadata']['Weight Bits'] == int(bits or 32)
        epochs = load(name).train_cfg.max_epochs
        assert model['Metadata']['Epochs'] == epochs
        assert model['Weights'] == f'work_dirs/{Path(name).stem}/epoch_{epochs}.pth'
        assert 'Results' not in model, 'only what was measured with this code'
        if bits is not None:
            twin = models[model['Float Model']['Name']]
            assert twin['Config'] == model['Float Model']['Config'] == f'configs/{twin_of(name)}'
            assert load(name).load_from == model['Float Model']['Weights'] == twin['Weights']


def test_metafile_says_how_the_bccd_configs_train():
    models = yaml.safe_load((CONFIGS / 'bccd' / 'metafile.yml').read_text())['Models']
    listed = {model['Config'].removeprefix('configs/') for model in models}
    assert listed == {name for name in EVERY if name.startswith('bccd/')}
    for model in models:
        config = load(model['Config'].removeprefix('configs/'))
        assert model['Metadata']['Batch Size'] == config.train_dataloader.batch_size
        assert model['Metadata']['Epochs'] == config.train_cfg.max_epochs


@pytest.mark.parametrize('readme', ['README.md', *(f'{folder}/README.md' for folder in FOLDERS)])
def test_links_of_the_readme_resolve(readme):
    path = CONFIGS / readme
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', path.read_text())
    assert links
    assert [link for link in links if not (path.parent / link).is_file()] == []


@pytest.mark.parametrize('name', COCO)
def test_readme_has_a_row_for_the_config(name):
    folder, file = name.split('/')
    assert f'](./{file}) |' in (CONFIGS / folder / 'README.md').read_text()


def test_example_of_the_readme_works(tmp_path):
    example = re.search(r'```python\n(_base_.*?)```', (CONFIGS / 'README.md').read_text(), re.S)
    mine = tmp_path / 'mine.py'
    mine.write_text(example.group(1))
    config = Config.fromfile(mine)
    assert config.model.type == 'mmaqd.QuantizedDetector'
    assert config.model.bbox_head.num_classes == len(config.metainfo.classes) == 1
    assert config.train_dataloader.dataset.metainfo == config.metainfo
    assert config.test_dataloader.dataset.ann_file == 'val.json'
    assert config.test_evaluator.ann_file == 'data/cats/val.json'


def test_what_low_bit_configs_share_stands_once():
    places: dict[str, list[str]] = {}
    for name in [*EVERY, *(f'_base_/{path.name}' for path in CONFIGS.glob('_base_/*.py'))]:
        for line in (CONFIGS / name).read_text().splitlines():
            places.setdefault(line.strip(), []).append(name)
    # With types and factors of its own.
    typed = 'bccd/retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd.py'
    assert set(places["pattern='backbone.conv1',"]) == {'_base_/low_bit.py', typed}
    assert set(places["dict(type='mmaqd.LogIntervalsHook'),"]) == {
        '_base_/low_bit.py', 'bccd/retinanet_r18-c16_fpn_mlbn-w2a2-progressive_1xb8-6e_bccd.py'
    }
    losses = [name for line, names in places.items() if 'FeatureDistillation' in line
              for name in names]  # yapf: disable
    assert set(losses) == {'_base_/distillation.py'}


def test_a_rule_is_added_to_those_of_a_config(tmp_path):
    further = dict(pattern='neck.*', weight_quantizer=dict(bit_width=8))
    base = 'fcos/fcos_r18_fpn_mlbn-w2a2_1x_coco.py'
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = __import__('mmaqd').config_path('{base}')\n"
                    'model = dict(quantization=dict(rules=[*_base_.fcos_rules, '
                    f'{further!r}]))\n')
    rules = Config.fromfile(mine).model.quantization.rules
    assert rules == [*load(base).model.quantization.rules, further]


def test_a_float_config_elsewhere_is_quantized_by_the_shared_rules(tmp_path):
    text = (CONFIGS / 'README.md').read_text().split('```python\n')
    example, = (part.split('```')[0] for part in text if './my_float_twin.py' in part)
    twin = 'retinanet/retinanet_r18_fpn_mlbn_1x_coco.py'
    (tmp_path /
     'my_float_twin.py').write_text(f"_base_ = __import__('mmaqd').config_path('{twin}')\n")
    (tmp_path / 'mine.py').write_text(example)
    config = Config.fromfile(tmp_path / 'mine.py')
    ours = load('retinanet/retinanet_r18_fpn_mlbn-w4a4_1x_coco.py')
    assert config.model.quantization == ours.model.quantization
    assert config.custom_hooks == ours.custom_hooks


@pytest.mark.parametrize('folder', ['somewhere', 'somewhere/'])
def test_the_data_may_be_named_with_and_without_a_slash(monkeypatch, folder):
    monkeypatch.setenv('MMAQD_BCCD', folder)
    cfg = Config.fromfile(CONFIGS / 'bccd' / 'retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py')
    assert cfg.test_evaluator.ann_file == 'somewhere/annotations/test.json'
