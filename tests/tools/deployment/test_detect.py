"""detect.py from the command line, in a process where neither torch nor MMDetection exists."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.helpers.engines import ENGINES, need
from tests.helpers.exported import BOXES, exported_file, recipe

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / 'tools' / 'deployment' / 'detect.py'
# Runs a script with its arguments. These packages can be found, but whoever imports one fails.
BLOCKED = '''
import runpy, sys
from importlib.machinery import ModuleSpec
blocked = set(sys.argv.pop(1).split(','))

class Hook:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition('.')[0] in blocked else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f'{spec.name} is blocked', name=spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Hook())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''
HEAVY = 'torch,torchvision,mmcv,mmengine,mmdet,mmaqd'


@pytest.fixture(autouse=True)
def _packages() -> None:
    need('onnx', 'onnxruntime')


def detect(*args: Any, script: Path = SCRIPT, blocked: str = HEAVY) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', BLOCKED, blocked, script, *args, '--threads', 1]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=script.parent, timeout=60)


def save(path: Path, shape: tuple[int, ...] = (48, 64, 3), dtype: Any = np.uint8) -> Path:
    top = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, top, shape).astype(dtype)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def read(out: Path) -> list[dict]:
    return json.loads((out / 'detections.json').read_text())


def refused(result: subprocess.CompletedProcess, words: str) -> None:
    assert result.returncode == 2, result
    assert result.stderr.startswith('Error: ') and result.stderr.count('\n') == 1, result.stderr
    assert words in result.stderr


@pytest.mark.parametrize('engine', ENGINES)
def test_an_image_without_torch(tmp_path: Path, engine: str) -> None:
    need(engine)
    model = exported_file(tmp_path / 'model.onnx', recipe(engine=engine))
    image = save(tmp_path / 'in' / 'a.png', (96, 128, 3))
    done = detect(model, image, '--out', tmp_path / 'out', '--engine', engine, '--score-thr', .45)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.splitlines() == [
        'a.png: 2 detections',
        f'Wrote 1 drawn images and detections.json to {tmp_path / "out"}: 2 detections in 1 images.'
    ]
    assert read(tmp_path / 'out') == [
        dict(
            file='a.png',
            height=96,
            width=128,
            boxes=(2 * BOXES[:2]).tolist(),
            scores=[.75, .5],
            labels=[1, 0],
            names=['dog', 'cat'])
    ]
    drawn = cv2.imread(str(tmp_path / 'out' / 'a.png'))
    assert drawn.shape == (96, 128, 3) and (drawn != cv2.imread(str(image))).any()


def test_the_hook_blocks() -> None:
    script = ROOT / 'tools' / 'test.py'
    assert 'is blocked' in detect('--help', script=script).stderr


def test_a_folder_in_batches_with_bad_images(tmp_path: Path) -> None:
    model = exported_file(tmp_path / 'model.onnx', recipe(batch=2))
    images = tmp_path / 'in'
    save(images / 'a.jpg')
    save(images / 'b.png', (48, 64))
    save(images / 'c.png', (48, 64, 4))
    save(images / 'd.png', (48, 64, 3), np.uint16)
    save(images / 'e.tif')
    save(images / 'thin.png', (1, 300, 3))
    save(images / 'tall.png', (64, 48, 3))
    (images / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0 no jpeg')
    (images / 'empty.png').write_bytes(b'')
    (images / 'notes.txt').write_text('no image')
    done = detect(model, images, '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        'a.jpg: 3 detections', 'b.png: 3 detections, converted to 8-bit colour (grey)',
        'c.png: 3 detections, converted to 8-bit colour (alpha)',
        'd.png: 3 detections, converted to 8-bit colour (16 bits)', 'e.tif: 3 detections',
        f'Wrote 5 drawn images and detections.json to {tmp_path / "out"}: '
        '15 detections in 5 images, 4 skipped.'
    ]
    lines = [each for each in done.stderr.splitlines() if each.startswith('Skipped')]
    expected = [('broken.jpg', 'is no image'), ('empty.png', 'is no image'),
                ('tall.png', 'larger than the input of 64 x 48'), ('thin.png', 'too thin')]
    assert len(lines) == 4
    assert all(name in line and words in line for (name, words), line in zip(expected, lines))
    assert sorted(each.name for each in (tmp_path / 'out').iterdir()) == [
        'a.jpg', 'b.png', 'c.png', 'd.png', 'detections.json', 'e.tif.png'
    ]


def test_fit_and_json_only(tmp_path: Path) -> None:
    model = exported_file(tmp_path / 'model.onnx')
    image = save(tmp_path / 'tall.png', (64, 48, 3))
    done = detect(model, image, '--out', tmp_path / 'new' / 'out', '--fit', '--json')
    assert done.returncode == 0
    assert [each.name for each in (tmp_path / 'new' / 'out').iterdir()] == ['detections.json']


def test_files_copied_out_of_the_package(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    shutil.copy(ROOT / 'mmaqd' / 'export' / 'runtime.py', tmp_path)
    model = exported_file(tmp_path / 'model.onnx')
    done = detect(model, save(tmp_path / 'a.png'), '--out', tmp_path / 'out', script=script)
    assert done.returncode == 0, done.stderr
    (tmp_path / 'runtime.py').unlink()
    done = detect(model, tmp_path / 'a.png', '--out', tmp_path / 'out', script=script)
    refused(done, 'copy mmaqd/export/runtime.py there')


def test_an_installed_package_is_found_but_not_imported(tmp_path: Path) -> None:
    installed = tmp_path / 'site' / 'mmaqd'
    script = installed / '.mim' / 'tools' / 'deployment' / 'detect.py'
    script.parent.mkdir(parents=True)
    (installed / 'export').mkdir()
    (installed / '__init__.py').write_text('raise SystemExit("imported")')
    shutil.copy(SCRIPT, script)
    shutil.copy(ROOT / 'mmaqd' / 'export' / 'runtime.py', installed / 'export')
    code = f'import sys; sys.path.insert(0, {str(tmp_path / "site")!r})\n' + BLOCKED
    model = exported_file(tmp_path / 'model.onnx', recipe(self_test=dict(dets=[], labels=[])))
    command = [sys.executable, '-c', code, 'torch,mmdet', script, model, '--self-test']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert 'Self-test failed in onnxruntime' in done.stderr


def test_self_test(tmp_path: Path) -> None:
    rows = [[8, 16, 24, 40, .75], [0, 0, 64, 48, .5], [50, 40, 64, 48, .4]]
    stored = dict(dets=rows, labels=[1, 0, 1])
    done = detect(exported_file(tmp_path / 'a.onnx', recipe(self_test=stored)), '--self-test')
    assert done.stdout == 'Self-test passed in onnxruntime: 3 detections as exported.\n'
    stored['labels'] = [1, 1, 1]
    done = detect(exported_file(tmp_path / 'b.onnx', recipe(self_test=stored)), '--self-test')
    refused(done, 'Self-test failed in onnxruntime: 1 of 3')


def test_models_that_are_refused_leave_no_folder(tmp_path: Path) -> None:
    image, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    (tmp_path / 'text.onnx').write_text('no model')
    refused(detect(tmp_path / 'text.onnx', image, '--out', out), 'is no ONNX file')
    refused(detect(tmp_path / 'none.onnx', image, '--out', out), "can't be read")
    raw = exported_file(tmp_path / 'raw.onnx', recipe(raw=True))
    refused(detect(raw, image, '--out', out), 'was exported with --raw')
    assert not out.exists()


def test_inputs_that_are_refused(tmp_path: Path) -> None:
    model = exported_file(tmp_path / 'model.onnx')
    (tmp_path / 'empty').mkdir()
    out = tmp_path / 'out'
    refused(detect(model, tmp_path / 'empty', '--out', out), 'holds no images')
    refused(detect(model, tmp_path / 'none.png', '--out', out), 'does not exist')
    refused(detect(model, model, '--out', out), f'{model}: it is no image that OpenCV reads')
    tall, thin = save(tmp_path / 'tall.png', (64, 48, 3)), save(tmp_path / 'thin.png', (1, 300, 3))
    refused(detect(model, tall, '--out', out), 'larger than the input of 64 x 48')
    refused(detect(model, thin, '--out', out), 'it is too thin: crop it')
    save(tmp_path / 'two' / 'a.png', (1, 300, 3))
    save(tmp_path / 'two' / 'b.png', (1, 300, 3))
    done = detect(model, tmp_path / 'two', '--out', out)
    assert done.returncode == 2 and 'None of 2 images could be used' in done.stderr
    assert not (out / 'detections.json').exists()


def test_outputs_that_are_refused_before_the_work(tmp_path: Path) -> None:
    model = exported_file(tmp_path / 'model.onnx')
    image = save(tmp_path / 'in' / 'a.png')
    before = image.read_bytes()
    (tmp_path / 'file').write_text('')
    for out in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        done = detect(model, image, '--out', out)
        refused(done, "can't be written")
        assert done.stdout == ''
    (tmp_path / 'out' / 'detections.json').mkdir(parents=True)
    refused(detect(model, image, '--out', tmp_path / 'out'), 'is a folder: name another --out')
    refused(detect(model, image, '--out', tmp_path / 'in'), 'would be overwritten')
    assert image.read_bytes() == before


@pytest.mark.parametrize('package, words', [
    ('onnxruntime', 'onnxruntime is not installed: pip install onnxruntime'),
    ('cv2', 'pip install numpy opencv-python-headless'),
])
def test_missing_packages(tmp_path: Path, package: str, words: str) -> None:
    model = exported_file(tmp_path / 'model.onnx')
    done = detect(model, '--self-test', blocked=f'{HEAVY},{package}')
    refused(done, words)


def test_command_lines_that_are_refused(tmp_path: Path) -> None:
    model = exported_file(tmp_path / 'model.onnx')
    for args in ([], [tmp_path], ['--out', tmp_path]):
        done = detect(model, *args)
        assert done.returncode == 2 and 'give an image or folder together with --out' in done.stderr
