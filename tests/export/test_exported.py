"""Exported files, from the trained 4-bit model of the repository to detections."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmaqd
from mmaqd.export.exported import export_detector
from mmaqd.export.files import check_out
from mmaqd.export.runtime import Detector, pattern_image
from mmaqd.registry import MODELS
from tests.helpers.bccd import BCCD, needs_bccd
from tests.helpers.engines import ENGINES, need, run_onnxruntime

NAME = 'retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd'
CONFIG = mmaqd.config_path(f'bccd/{NAME}.py')
FOLDER = Path(CONFIG).parent / 'packed'
CHECKPOINT = str(FOLDER / f'{NAME}.safetensors')
IMAGE = FOLDER / 'BloodImage_00057.jpg'
DATA = {
    'train_dataloader.dataset.data_root': f'{BCCD}/',
    'train_dataloader.dataset.indices': 8,
    'train_dataloader.num_workers': 0
}


def export(out: Path, **options: Any) -> dict:
    return export_detector(CONFIG, CHECKPOINT, str(out), cfg_options=DATA, **options)


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    need('onnx', *ENGINES)
    folder = tmp_path_factory.mktemp('files')
    paths = {engine: folder / f'{engine}.onnx' for engine in ENGINES}
    for engine, path in paths.items():
        export(path, engine=engine)
    paths['packed'] = folder / 'packed.onnx'
    export(paths['packed'], packed=True)
    return paths


def assert_same_detections(found: dict, expected: dict, least: float = 0.1) -> None:
    """Each detection of one result is in the other; their order is not looked at, as scores tie."""
    for one, other in ((found, expected), (expected, found)):
        theirs = np.column_stack([other['boxes'], 1000 * other['scores'], 1000 * other['labels']])
        for box, score, label in zip(one['boxes'], one['scores'], one['labels']):
            distance = np.abs(theirs - [*box, 1000 * score, 1000 * label]).max(1)
            assert score < least or distance.min() < 2e-2, (box, score, label)
    assert (found['scores'] >= least).sum() > 5


@needs_bccd
class TestFiles:

    @pytest.mark.slow
    def test_they_give_the_same_detections(self, files):
        image = cv2.imread(str(IMAGE))
        results = [Detector(path)([image])[0] for path in files.values()]
        assert len(results[0]['scores']) > 5 and results[0]['names'][0] == 'WBC'
        for each in results[1:]:
            assert_same_detections(each, results[0])

    def test_they_pass_their_own_test(self, files):
        for path in files.values():
            assert 'passed' in Detector(path).self_test()

    def test_packed_weights_take_little(self, files):
        assert files['packed'].stat().st_size < 0.75 * files['onnxruntime'].stat().st_size

    def test_the_recipe_says_how_images_are_prepared(self, files):
        recipe = Detector(files['onnxruntime']).recipe
        assert recipe['size'] == [256, 320] and recipe['pad']['value'] == [124, 116, 104]
        assert recipe['classes'] == ['RBC', 'WBC', 'Platelets'] and recipe['color'] == 'rgb'
        assert {each['weight_bits'] for each in recipe['layers']} == {4, 8}

    def test_the_file_as_a_detector_finds_what_the_runtime_finds(self, files):
        from mmdet.apis import inference_detector
        cfg = Config.fromfile(CONFIG)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(
                dict(
                    type='mmaqd.FileDetector',
                    file=str(files['onnxruntime']),
                    data_preprocessor=cfg.model.data_preprocessor)).eval()
        model.cfg = cfg
        found = inference_detector(model, str(IMAGE)).pred_instances
        expected = Detector(files['onnxruntime'])([cv2.imread(str(IMAGE))])[0]
        np.testing.assert_allclose(found.scores.numpy(), expected['scores'], atol=1e-6)
        np.testing.assert_allclose(found.bboxes.numpy(), expected['boxes'], atol=1e-2)

    @pytest.mark.parametrize('engine', ENGINES)
    def test_any_size(self, files, engine, tmp_path):
        export(tmp_path / 'any.onnx', engine=engine, dynamic=True)
        whole, image = Detector(tmp_path / 'any.onnx'), cv2.imread(str(IMAGE))
        found, expected = whole([image])[0], Detector(files[engine])([image])[0]
        assert 'passed' in whole.self_test()
        assert_same_detections(found, expected)
        part = whole([np.ascontiguousarray(image[:, :200]), image])
        assert part[0]['boxes'].max() <= image.shape[0] and len(part[0]['boxes'])
        assert whole.run(np.zeros((2, 3, 96, 64), np.uint8))[0].shape[0] == 2

    def test_qonnx_gives_the_integers_of_the_other_files(self, files, tmp_path):
        need('qonnx')
        import onnx
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes
        small, image = dict(size=(32, 32)), pattern_image(32, 32)[None]
        export(tmp_path / 'q.onnx', qonnx=True, **small)
        export(tmp_path / 'raw.onnx', raw=True, **small)
        model = ModelWrapper(str(tmp_path / 'q.onnx')).transform(InferShapes())
        found = execute_onnx(model, {'input': image.astype(np.float32)})
        expected = run_onnxruntime(onnx.load(tmp_path / 'raw.onnx'), image)
        assert set(found) == set(expected) and len(found) == 10
        for name, maps in expected.items():
            np.testing.assert_array_equal(found[name], maps)

    def test_prediction_maps_alone(self, tmp_path):
        import onnx
        export(tmp_path / 'raw.onnx', raw=True)
        names = [each.name for each in onnx.load(tmp_path / 'raw.onnx').graph.output]
        assert names == [f'{kind}.{i}' for kind in ('cls_score', 'bbox_pred') for i in range(5)]

    def test_a_size_that_the_padding_does_not_divide_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match='--size.*250 x 320.*multiples of 32'):
            export(tmp_path / 'a.onnx', size=(250, 320))

    def test_a_pipeline_that_a_file_cannot_do_is_refused(self, tmp_path):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='Pad', size=(320, 320))]
        options = {
            **DATA, 'test_dataloader.dataset.pipeline': [*pipeline,
                                                         dict(type='PackDetInputs')]
        }
        with pytest.raises(ValueError, match="'Pad'.*a file can't do"):
            export_detector(CONFIG, CHECKPOINT, str(tmp_path / 'a.onnx'), cfg_options=options)


@pytest.mark.parametrize(('name', 'problem'), [('a.pth', 'ends in .onnx'),
                                               ('folder.onnx', "can't be written")])
def test_where_a_file_goes_is_checked_before_the_work(name: str, problem: str, tmp_path) -> None:
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises((ValueError, PermissionError), match=problem):
        check_out(str(tmp_path / name), '.onnx')


@pytest.mark.parametrize(('options', 'problem'), [
    (dict(dynamic=True, in_float=True), '--dynamic: .*--float'),
    (dict(dynamic=True, qonnx=True), '--dynamic: .*--qonnx'),
    (dict(packed=True, qonnx=True), '--packed: .*--qonnx'),
    (dict(in_float=True, qonnx=True), '--qonnx: .*--float'),
    (dict(packed=True, engine='openvino'), '--packed: .*ONNX Runtime'),
    (dict(packed=True, in_float=True), '--packed: .*--float'),
], ids=str)  # yapf: disable
def test_options_that_contradict_each_other_are_refused(options: dict, problem: str,
                                                        tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        export_detector('no.py', 'no.pth', str(tmp_path / 'a.onnx'), **options)
