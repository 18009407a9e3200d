"""The trained files that lie in the repository: they detect as the documentation says."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

import mmaqd
from mmaqd.export.runtime import DetectError, Detector
from tests.helpers.engines import need

NAME = 'retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd'
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'configs' / 'bccd' / 'packed'
FILE, IMAGE = FOLDER / f'{NAME}.onnx', FOLDER / 'BloodImage_00057.jpg'
# What ONNX Runtime needs to run a model, and what it imports of these.
ALONE = ('numpy', 'numpy.libs', 'cv2', 'opencv_python.libs', 'opencv_python_headless.libs',
         'onnxruntime', 'onnxruntime.libs', 'flatbuffers', 'google', 'packaging')


def test_the_exported_file_passes_its_test_and_detects() -> None:
    need('onnxruntime')
    detector = Detector(FILE)
    assert 'passed' in detector.self_test()
    found = detector([cv2.imread(str(IMAGE))], score_thr=0.3)[0]
    assert found['names'].count('WBC') == 1 and found['names'].count('RBC') > 5


def test_it_tells_nothing_of_the_machine_that_made_it() -> None:
    text = Detector(FILE).recipe['config']['text']
    assert text and str(ROOT.parent) not in text and str(Path.home()) not in text


def test_another_engine_is_told_what_to_do() -> None:
    need('openvino')
    problem = "openvino can't load .*onnx: It is for onnxruntime: export with --engine openvino"
    with pytest.raises(DetectError, match=problem):
        with pytest.warns(UserWarning, match='is for onnxruntime'):
            Detector(FILE, 'openvino')


def test_the_whole_way_with_nothing_but_onnxruntime_numpy_and_opencv(tmp_path: Path) -> None:
    need('onnxruntime')
    packages = tmp_path / 'packages'
    packages.mkdir()
    site = Path(np.__file__).parents[1]
    for name in ALONE:
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    for source in ('mmaqd/export/runtime.py', 'tools/deployment/detect.py'):
        shutil.copy(ROOT / source, tmp_path)

    def python(*arguments: str) -> subprocess.CompletedProcess:
        environment = dict(PATH=os.environ['PATH'], PYTHONPATH=str(packages), HOME=str(tmp_path))
        return subprocess.run([sys.executable, '-S', *arguments], env=environment, cwd=tmp_path,
                              capture_output=True, text=True, check=False)  # yapf: disable

    for missing in ('torch', 'mmengine', 'mmdet', 'mmcv', 'mmaqd', 'onnx'):
        assert find_spec(missing) and python('-c', f'import {missing}').returncode
    assert 'passed' in python('detect.py', str(FILE), '--self-test').stdout
    done = python('detect.py', str(FILE), str(IMAGE), '--out', 'found')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'found' / 'detections.json').is_file()
    assert cv2.imread(str(tmp_path / 'found' / IMAGE.name)).shape == cv2.imread(str(IMAGE)).shape


@pytest.mark.parametrize('name', [NAME, 'retinanet_r18-c16_fpn_mlbn-w2a2-distill_1xb8-6e_bccd'])
def test_the_metafile_names_the_packed_weights(name: str) -> None:
    models = Config.fromfile(mmaqd.config_path('bccd/metafile.yml')).Models
    model, = [each for each in models if each['Name'] == name]
    assert (ROOT / model['Weights']).is_file() and Path(model['Weights']).stem == name
    assert model['Results'][0]['Metrics']['box AP'] > 38
