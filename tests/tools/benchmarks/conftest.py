"""The modules of tools/benchmarks, and tools that only pretend to train: a run takes a blink."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'))

import accuracy_runs  # noqa: E402

from mmaqd.demo import commands  # noqa: E402

# Each notes what it does in the file `journal`. A seed of 13 fails.
_COMMON = '''
import json, os, signal, sys
from pathlib import Path

words = sys.argv[1:]
options = dict(word.split('=', 1) for word in words[words.index('--cfg-options') + 1:])
journal = Path(__file__).resolve().parents[1] / 'journal'

def note(text):
    with open(journal, 'a') as file:
        file.write(text + '\\n')

if options.get('randomness.seed') == '13':
    sys.exit('out of luck')
'''
_TRAIN = _COMMON + '''
folder = Path(words[words.index('--work-dir') + 1])
last = folder / 'last_checkpoint'
done = int(last.read_text().split('_')[-1][:-4]) if last.exists() else 0
for epoch in range(done + 1, 4):
    (folder / f'epoch_{epoch}.pth').touch()
    last.write_text(str(folder / f'epoch_{epoch}.pth'))
    note(f'{folder} epoch {epoch} from {options.get("load_from")}')
    if options.get('dies_after') == str(epoch) and not done:
        os.kill(os.getpid(), signal.SIGKILL)
'''
_CALIBRATE = _COMMON + '''
note(f'calibrate {words[1]}')
Path(words[words.index('--out') + 1]).touch()
'''
_TEST = _COMMON + '''
folder = Path(words[words.index('--work-dir') + 1])
note(f'{folder} of {words[1]}')
(folder / 'time').mkdir()
(folder / 'time' / 'time.json').write_text(json.dumps({'coco/bbox_mAP': 0.4, 'time': 0.1}))
Path(options['test_evaluator.outfile_prefix'] + '.bbox.json').write_text('[]')
'''


@pytest.fixture
def journal(tmp_path, monkeypatch) -> Path:
    """Works in an empty folder with fake tools; the file in which these note what they do."""
    (tmp_path / 'tools').mkdir()
    for name, source in (('train', _TRAIN), ('calibrate', _CALIBRATE), ('test', _TEST)):
        (tmp_path / 'tools' / f'{name}.py').write_text(source)
    monkeypatch.setattr(commands, '_ROOT', tmp_path)
    monkeypatch.setattr(accuracy_runs, 'ROOT', tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'journal').touch()
    return tmp_path / 'journal'


@pytest.fixture
def table(tmp_path) -> Path:
    """Rows: one to start from, a float twin, one taught by it and one that is calibrated."""
    rows = dict(
        base=dict(config='net.py', seeds=[0]),
        long=dict(config='net.py', seeds=[0], start='base'),
        low=dict(
            config='low.py', seeds=[0], start='base', twin='long',
            overrides={'model.bits': 2, 'model.teacher': '{twin}'}),
        calibrated=dict(
            config='low.py', seeds=[0, 1], start='long', twin='long',
            calibrate=['--reestimate-bn']),
        lonely=dict(config='net.py', seeds=[0], overrides={'sizes': [1, 2]}))  # yapf: disable
    path = tmp_path / 'rows.yml'
    path.write_text(json.dumps(dict(rows=rows)))  # which is YAML too
    return path
