"""Runs an exported detector: one file that needs numpy, OpenCV, and ONNX Runtime or OpenVINO.

It works copied out of the package; how images are preprocessed comes from the ONNX file's metadata.
"""
from __future__ import annotations

import functools
import importlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, Sequence

try:
    import cv2
    import numpy as np
except ImportError as missing:
    raise ImportError(f'{missing}: pip install numpy opencv-python-headless.') from missing

ENGINES = ('onnxruntime', 'openvino')
METADATA, VERSION = 'mmaqd', 1
BOX_TOLERANCE, SCORE_TOLERANCE, TESTED = 1e-2, 1e-3, 20
RESULT = ('boxes', 'scores', 'labels', 'names')
Result = dict[str, Any]
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class DetectError(ValueError):
    """A file, an image or an option that can't be used; says what to do."""


def read_recipe(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that mmaqd wrote into an ONNX file, checked; no engine is needed.

    Raises:
        DetectError: The file can't be read, is no ONNX file, or none that mmaqd exported.
    """
    text = _read_metadata(Path(path)).get(METADATA)
    if text is None:
        raise DetectError(f"{path} has no metadata '{METADATA}', so it was not exported by mmaqd: "
                          'write it with tools/deployment/export.py.')
    try:
        recipe = json.loads(text)
        if recipe['version'] > VERSION:
            raise DetectError(f'{path} was written by a newer mmaqd (recipe {recipe["version"]}, '
                              f'this one knows {VERSION}): take the newer runtime.py.')
        if not recipe['raw']:
            _check_recipe(recipe)
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, DetectError):
            raise
        raise DetectError(f"The metadata '{METADATA}' of {path} is damaged "
                          f'({type(error).__name__}: {error}): export it again.') from error
    if recipe['raw']:
        raise DetectError(f'{path} was exported with --raw: it gives prediction maps, not '
                          'detections; export it without --raw.')
    return recipe


def _check_recipe(recipe: dict[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless it can be used."""
    resize, pad = recipe['resize'], recipe['pad']
    counts = [recipe['batch'], pad['divisor'], *recipe['size'], *resize['scale']]
    right = dict(
        sizes=len(counts) == 6 and all(type(each) is int and each > 0 for each in counts),
        pad=len(pad['value']) == 3 and all(0 <= each <= 255 for each in pad['value']),
        color=recipe['color'] in ('rgb', 'bgr'),
        engine=recipe['engine'] in ENGINES,
        classes=all(isinstance(each, str) for each in recipe['classes']),
        keep_ratio=isinstance(resize['keep_ratio'], bool),
        dynamic=isinstance(recipe['dynamic'], bool))
    if not all(right.values()):
        raise ValueError(', '.join(key for key, value in right.items() if not value))


def _read_metadata(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file (a protobuf), its graph skipped unread."""
    found, fields = {}, set()
    try:
        with path.open('rb') as file:
            for field, start, end in _fields(file, path.stat().st_size):
                fields.add(field)
                if field == 14:
                    file.seek(start)
                    entry = {each: (first, last) for each, first, last in _fields(file, end)}
                    key, value = (_text(file, *entry.get(each, (0, 0))) for each in (1, 2))
                    found[key] = value
                    file.seek(end)
    except OSError as error:
        raise DetectError(f"{path} can't be read ({error.strerror}): expected an ONNX file "
                          'that tools/deployment/export.py wrote.') from error
    except (EOFError, UnicodeDecodeError) as error:
        raise DetectError(f'{path} is no ONNX file, or is cut off: expected one that '
                          'tools/deployment/export.py wrote.') from error
    if not {1, 7} <= fields:  # the format's version, the graph
        raise DetectError(f'{path} is no ONNX file: expected one that '
                          'tools/deployment/export.py wrote.')
    return found


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a protobuf message that reaches up to ``end``."""
    while file.tell() < end:
        key = _varint(file)
        kind, start = key & 7, file.tell()
        if kind == 0:
            _varint(file)
            stop = file.tell()
        elif kind in (1, 2, 5):
            length = _varint(file) if kind == 2 else {1: 8, 5: 4}[kind]
            start = file.tell()
            stop = start + length
        else:
            raise EOFError
        if stop > end:
            raise EOFError
        file.seek(stop)
        yield key >> 3, start, stop
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise EOFError


def _text(file: BinaryIO, start: int, end: int) -> str:
    file.seek(start)
    return file.read(end - start).decode()


def import_engine(engine: str) -> Any:
    """The engine's package."""
    try:
        return importlib.import_module(engine)
    except ImportError as error:
        other = ENGINES[1 - ENGINES.index(engine)]
        raise DetectError(f'{engine} is not installed: pip install {engine}, '
                          f'or take the other engine, {other}.') from error


def _open_onnxruntime(path: str, threads: int | None) -> tuple[Run, list[int | None]]:
    onnxruntime = import_engine('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    shape = [each if isinstance(each, int) else None for each in session.get_inputs()[0].shape]
    return lambda images: tuple(session.run(['dets', 'labels'], {'input': images})), shape


@functools.lru_cache(maxsize=None)
def _openvino_core() -> Any:
    """The only one: of two, the first that goes takes along the stack for signals of the other."""
    return import_engine('openvino').Core()


def compile_openvino(model: str | bytes, threads: int | None, **options: Any) -> Any:
    """An ONNX file compiled in float32: OpenVINO takes bfloat16 where the processor has it."""
    core = _openvino_core()
    options.update(INFERENCE_PRECISION_HINT='f32')
    if threads:
        options.update(INFERENCE_NUM_THREADS=threads)
    return core.compile_model(core.read_model(model), 'CPU', options)


def _open_openvino(path: str, threads: int | None) -> tuple[Run, list[int | None]]:
    compiled = compile_openvino(path, threads)
    dets, labels = compiled.output('dets'), compiled.output('labels')

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        results = compiled({'input': images})
        return results[dets], results[labels]

    shape = compiled.input('input').get_partial_shape()
    return run, [None if each.is_dynamic else each.get_length() for each in shape]


class Detector:
    """An exported detector.

    Args:
        path: ONNX file that tools/deployment/export.py wrote.
        engine: 'onnxruntime' or 'openvino'; by default the one that the file was written for.
        threads: Threads of the engine; by default as many as it likes.
        fit: Shrink images further that the resize rule makes larger than the input, instead of
            refusing them.

    Attributes:
        recipe: The file's metadata.
        run: From images (batch, 3, H, W) uint8, resized, to dets and labels.

    Raises:
        DetectError: The file is none of ours, or the engine is missing or can't load it.
    """

    def __init__(self,
                 path: str | os.PathLike,
                 engine: str | None = None,
                 threads: int | None = None,
                 fit: bool = False) -> None:
        self.recipe = read_recipe(path)
        self.engine = self.recipe['engine'] if engine is None else engine
        self.fit = fit
        if self.engine not in ENGINES:
            raise DetectError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}.")
        if threads is not None and threads < 1:
            raise DetectError(f'threads is {threads}, expected 1 or more.')
        advice = ''
        if self.engine != self.recipe['engine']:
            advice = f' It is for {self.recipe["engine"]}: export with --engine {self.engine}.'
            warnings.warn(f'{self.engine} may be slow or inexact with {path}.{advice}')
        open_engine = dict(zip(ENGINES, (_open_onnxruntime, _open_openvino)))[self.engine]
        import_engine(self.engine)
        try:
            self.run, shape = open_engine(os.fspath(path), threads)
        except Exception as error:  # engines raise exceptions of their own
            problem = ' '.join(str(error).split())[:200]
            raise DetectError(f"{self.engine} can't load {path}:{advice} {problem}") from error
        self._check_input(path, shape)

    def _check_input(self, path: str | os.PathLike, shape: list[int | None]) -> None:
        expected = [self.recipe['batch'], 3, *self.recipe['size']]
        if len(shape) != 4 or any(each not in (None, size) for each, size in zip(shape, expected)):
            raise DetectError(f'The input of {path} is {shape}, its metadata says {expected}: '
                              'export it again.')
        self._fixed = None not in shape[2:] or not self.recipe['dynamic']

    def __call__(self, images: Sequence[np.ndarray], score_thr: float = 0.) -> list[Result]:
        """Detections in each image, best first.

        Args:
            images: H x W x 3 uint8 arrays, blue first, as cv2.imread gives them.
            score_thr: Detections of lower scores are left out.

        Returns:
            For each image boxes (k, 4) float32, x1 y1 x2 y2 in its pixels, scores (k,) float32,
            labels (k,) int64 and names, a list of k strings.

        Raises:
            DetectError: An image is none, or doesn't fit.
        """
        results: list[Result] = []
        step = self.recipe['batch']
        for start in range(0, len(images), step):
            chunk = images[start:start + step]
            resized = [self._resize(image) for image in chunk]
            dets, labels = self.run(self._stack(resized))
            results += [
                self._restore(*each, score_thr) for each in zip(chunk, resized, dets, labels)
            ]
        return results

    def check(self, image: np.ndarray) -> tuple[int, int]:
        """Width and height that an image is resized to; DetectError if it can't be used."""
        check_image(image)
        (height, width), (high, wide) = image.shape[:2], self.recipe['size']
        size = self._resized(width, height)
        what = (f'An image of {width} x {height} pixels (width x height) is resized to '
                f'{size[0]} x {size[1]}')
        if not all(size):
            raise DetectError(f'{what}, it is too thin: crop it.')
        if not self._fixed or (size[0] <= wide and size[1] <= high):
            return size
        if not self.fit:
            raise DetectError(f'{what}, larger than the input of {wide} x {high}: export with '
                              'a larger --size, or shrink it with --fit (fit=True).')
        return self._resized(width, height, fit=True)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """The image resized, in the network's channel order; not padded yet."""
        resized = cv2.resize(image, self.check(image), interpolation=cv2.INTER_LINEAR)
        return resized[..., ::-1] if self.recipe['color'] == 'rgb' else resized

    def _resized(self, width: int, height: int, fit: bool = False) -> tuple[int, int]:
        """Width and height by the rule of MMDetection's Resize; ``fit``: inside the input."""
        scale = self.recipe['resize']['scale']
        if not self.recipe['resize']['keep_ratio']:
            return tuple(self.recipe['size'][::-1]) if fit else tuple(scale)
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        if fit:
            high, wide = self.recipe['size']
            factor = min(factor, wide / width, high / height)
            return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))
        return int(width * factor + 0.5), int(height * factor + 0.5)

    def _stack(self, images: list[np.ndarray]) -> np.ndarray:
        """The images padded at the bottom and right, (N, 3, H, W) uint8, the batch filled up."""
        height, width = self.recipe['size']
        if not self._fixed:
            divisor = self.recipe['pad']['divisor']
            height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor
                             for axis in (0, 1))
        value = np.array(self.recipe['pad']['value'], np.uint8).reshape(3, 1, 1)
        batch = np.tile(value, (self.recipe['batch'], 1, height, width))
        for padded, image in zip(batch, images):
            padded[:, :image.shape[0], :image.shape[1]] = image.transpose(2, 0, 1)
        return batch

    def _restore(self, image: np.ndarray, resized: np.ndarray, dets: np.ndarray, labels: np.ndarray,
                 score_thr: float) -> Result:
        """Detections in the original image; those wholly in the padding are left out."""
        (height, width), classes = image.shape[:2], self.recipe['classes']
        factors = np.array([resized.shape[1] / width, resized.shape[0] / height] * 2)
        boxes = np.clip(dets[:, :4] / factors, 0, [width, height] * 2).astype(np.float32)
        kept = (labels >= 0) & (dets[:, 4] > 0) & (dets[:, 4] >= score_thr)
        kept &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        if kept.any() and labels[kept].max() >= len(classes):
            raise DetectError(f'The file gives label {labels[kept].max()}, but its metadata names '
                              f'{len(classes)} classes: export it again.')
        return dict(
            boxes=boxes[kept],
            scores=dets[kept, 4].astype(np.float32),
            labels=labels[kept].astype(np.int64),
            names=[classes[label] for label in labels[kept]])

    def self_test(self) -> str:
        """Compare the detections on a fixed image with those of the machine that exported.

        Raises:
            DetectError: They differ, or the file has none to compare with.
        """
        stored = self.recipe.get('self_test')
        try:
            expected = np.array(stored['dets'], np.float64).reshape(-1, 5)
            labels = np.array(stored['labels'], np.int64).reshape(len(expected))
        except (KeyError, TypeError, ValueError) as error:
            raise DetectError(
                'The file has no self-test in its metadata: export it again.') from error
        images = np.repeat(pattern_image(*self.recipe['size'])[None], self.recipe['batch'], axis=0)
        found, classes = (each[0] for each in self.run(images))
        found, classes = found[classes >= 0], classes[classes >= 0]
        misses = len(expected) - _matches(expected, labels, found, classes)
        if misses or len(expected) != min(len(found), TESTED):
            raise DetectError(f'Self-test failed in {self.engine}: {misses} of {len(expected)} '
                              f'stored detections are not among the {len(found)} found here; take '
                              'the other --engine, or export for this one.')
        return f'Self-test passed in {self.engine}: {len(expected)} detections as exported.'


def _matches(expected: np.ndarray, labels: np.ndarray, found: np.ndarray,
             classes: np.ndarray) -> int:
    """How many expected detections have a partner of their own; the order of ties may differ."""
    free = np.ones(len(found), bool)
    tolerance = np.array([BOX_TOLERANCE] * 4 + [SCORE_TOLERANCE])
    for row, label in zip(expected, labels):
        same = free & (classes == label) & (np.abs(found - row) <= tolerance).all(1)
        if same.any():
            free[same.argmax()] = False
    return int((~free).sum())


def pattern_image(height: int, width: int) -> np.ndarray:
    """The self-test's image, (3, height, width) uint8, in the network's channel order."""
    channel, y, x = np.ogrid[:3, :height, :width]
    return ((85 * channel + 3 * y + 7 * x + (x * y >> 3)) % 256).astype(np.uint8)


def check_image(image: Any) -> None:
    """Raise DetectError unless it is an H x W x 3 uint8 array."""
    if not isinstance(image, np.ndarray):
        raise DetectError(f'An image is {type(image).__name__}, expected an H x W x 3 uint8 array '
                          'as cv2.imread gives it; an image file that is none gives None.')
    hint = 'load it with cv2.imread(path), which converts grey, alpha and 16 bits.'
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        kind = {2: 'grey, ', 3: 'with alpha, ' if image.shape[-1:] == (4, ) else ''}
        raise DetectError(f'An image is {kind.get(image.ndim, "")}of shape {image.shape}, '
                          f'expected (H, W, 3): {hint}')
    if image.dtype != np.uint8:
        raise DetectError(f'An image is {image.dtype}, expected uint8: {hint}')


def draw(image: np.ndarray, result: Result) -> np.ndarray:
    """A copy of an H x W x 3 uint8 image with boxes, names and scores."""
    image = image.copy()
    thickness = max(1, round(max(image.shape) / 400))
    for box, score, label, name in zip(*(result[key] for key in RESULT)):
        # Hues a golden angle apart; OpenCV counts them up to 180.
        hue = np.uint8([[[int(label) * 69 % 180, 255, 230]]])
        color = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        left, top, right, bottom = (int(round(float(each))) for each in box)
        cv2.rectangle(image, (left, top), (right, bottom), color, thickness)
        cv2.putText(image, f'{name} {score:.2f}', (left, max(top - 3, 12)),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness, color, thickness, cv2.LINE_AA)
    return image


def to_json(result: Result) -> dict[str, list]:
    """A result as plain lists, to be written as JSON."""
    return {key: np.asarray(result[key]).tolist() for key in RESULT}
