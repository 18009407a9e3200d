"""The study's modules, and tools that only pretend to train, so that a run takes a blink."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'))

import study_runs  # noqa: E402
from study_rows import Row  # noqa: E402

from mmaqd.demo import commands  # noqa: E402

# Reads `config --work-dir ... --cfg-options key=value ...` as tools/train.py and test.py do.
_COMMON = '''
import ast, json, os, signal, sys, time, zipfile
from pathlib import Path

def value(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text

words = sys.argv[1:]
config = Path(words[0])
cfg = {}
exec(config.read_text(), cfg)
del cfg['__builtins__']
for option in words[words.index('--cfg-options') + 1:]:
    key, text = option.split('=', 1)
    node = cfg
    for part in key.split('.')[:-1]:
        node = node.setdefault(part, {})
    node[key.split('.')[-1]] = value(text)
fake = cfg.get('fake', {})

def note(folder, text):
    with open(os.environ['FAKE_JOURNAL'], 'a') as file:
        file.write(f'{folder.parent.name}/{folder.name} {text}\\n')

def save(path):
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('data.pkl', cfg.get('load_from') or '')

def dump(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config.name).write_text(''.join(f'{key} = {item!r}\\n' for key, item in cfg.items()))
'''
_TRAIN = _COMMON + '''
folder = Path(words[words.index('--work-dir') + 1])
dump(folder)
print('a line of the log')
if fake.get('fails'):
    sys.exit('out of luck')
named = folder / 'last_checkpoint'
done = int(Path(named.read_text()).stem.split('_')[1]) if named.exists() else 0
for epoch in range(done + 1, cfg['train_cfg']['max_epochs'] + 1):
    if fake.get('writes_nothing'):
        break
    save(folder / f'epoch_{epoch}.pth')
    named.write_text(str(folder / f'epoch_{epoch}.pth'))
    (folder / f'epoch_{epoch - 2}.pth').unlink(missing_ok=True)
    note(folder, f'epoch {epoch}')
    if fake.get('dies_after') == epoch and not done:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(fake.get('sleeps', 0))
'''
_CALIBRATE = _COMMON + '''
out = Path(words[words.index('--out') + 1])
dump(out.parent)
cfg['load_from'] = words[1]
save(out)
note(out.parent, 'calibrate')
'''
_TEST = _COMMON + '''
folder = Path(words[words.index('--work-dir') + 1])
note(folder.parent, f'test {Path(words[1]).name}')
log = folder / '20260101_000000'
log.mkdir(parents=True)
metrics = {'coco/bbox_mAP': fake['ap'], 'RBC_precision': 0.9} if fake['ap'] else {}
(log / '20260101_000000.json').write_text(json.dumps({**metrics, 'time': 0.1, 'data_time': 0.1}))
'''
CONFIG = '''
model = dict(type='Net', depth=1)
train_dataloader = dict(dataset=dict(data_root='data/', ann_file='annotations/trainval.json'))
test_dataloader = dict(dataset=dict(data_root='data/', ann_file='annotations/test.json'))
test_evaluator = dict(ann_file='data/annotations/test.json')
train_cfg = dict(max_epochs=3)
randomness = dict(seed=0)
fake = dict(ap=0.4)
data_root = 'data/'
load_from = None
'''


@pytest.fixture
def fake_tools(tmp_path, monkeypatch) -> Path:
    """Replaces the tools and the configs by fakes; the file in which the tools note what they do.
    """
    (tmp_path / 'tools').mkdir()
    for name, source in (('train', _TRAIN), ('calibrate', _CALIBRATE), ('test', _TEST)):
        (tmp_path / 'tools' / f'{name}.py').write_text(source)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'net.py').write_text(CONFIG)
    monkeypatch.setattr(commands, '_ROOT', tmp_path)
    monkeypatch.setattr(study_runs, 'config_path', lambda path: str(tmp_path / 'configs' / path))
    study_runs._load.cache_clear()
    journal = tmp_path / 'journal'
    journal.touch()
    monkeypatch.setenv('FAKE_JOURNAL', str(journal))
    yield journal
    study_runs._load.cache_clear()


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Makes a row of the fake config."""

    def make(name: str, **fields) -> Row:
        return Row(**{
            **dict(name=name, config='net.py', groups=('main', ), detector='Net'),
            **fields
        })

    return make


@pytest.fixture
def result() -> Callable[..., dict]:
    """Makes what a run writes as ``metrics.json``."""

    def make(ap: float, **fields) -> dict:
        metrics = {f'bbox_{name}': ap for name in study_runs.METRICS}
        return {
            **dict(
                split='test',
                metrics=metrics,
                cpu_seconds=60.0,
                all_is_measured=True,
                versions=dict(torch='2.0'),
                machine='A'),
            **json.loads(json.dumps(fields))
        }

    return make
