"""The generated data set 'shapes': a small detection task in COCO format, the same for a seed.

Every image is 256 x 256 pixels and shows shapes of five classes from about 14 to 232 pixels, so
that with anchors from 16 pixels up each of the pyramid levels P3 to P7 gets objects. Below the
root lie ``train/``, ``val/``, ``annotations/{train,val}.json`` and ``shapes.json``, which records
what was asked for and the SHA-256 of every file.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from .drawing import CLASSES, draw_shape, shape_polygon, textured_background

IMAGE_SIZE = 256

# Raised whenever the same spec would give other files, so that old data is not taken for new.
_FORMAT = 1
_RECORD = 'shapes.json'
# Longer side of the objects in pixels, by the pyramid level that is meant to find them.
_SIDES = {3: (14, 28), 4: (28, 56), 5: (56, 112), 6: (112, 180), 7: (184, 232)}
# Levels of the objects in one image, large to small; images take these plans in turn.
_PLANS = ((7, 4, 3, 3), (6, 4, 4, 3, 3), (5, 5, 4, 4, 3), (6, 5, 4, 3, 3))
_MAX_COVERED = 0.12
_PLACEMENT_TRIES = 60


@dataclass(frozen=True)
class ShapesSpec:
    """What to generate.

    Args:
        num_train: Images in the training split, at least 1.
        num_val: Images in the validation split, at least 1.
        seed: Seed of everything random, at least 0.

    Raises:
        ValueError: If a number is out of range.
    """

    num_train: int = 400
    num_val: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (('num_train', 1), ('num_val', 1), ('seed', 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f'ShapesSpec: {name} must be an integer >= {least}, '
                                 f'got {value!r}.')


def ensure_shapes(root: str | Path, spec: ShapesSpec = ShapesSpec()) -> bool:
    """Write the data set unless it lies there complete and unchanged.

    Args:
        root: Folder of the data set, made when missing.
        spec: What to generate.

    Returns:
        True when files were written, False when all were found as recorded.

    Raises:
        ValueError: If ``root`` holds a data set that was made from another spec.
        OSError: If a file can't be written.
    """
    root = Path(root)
    if find_shapes(root, spec):
        return False
    digests = {}
    for split, (name, count) in enumerate((('train', spec.num_train), ('val', spec.num_val))):
        (root / name).mkdir(parents=True, exist_ok=True)
        for path, content in _split_files(name, split, count, spec.seed):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            digests[path] = hashlib.sha256(content).hexdigest()
    # Written last: as long as it is missing, the data set counts as unfinished.
    record = dict(format=_FORMAT, **asdict(spec), sha256=digests)
    (root / _RECORD).write_text(json.dumps(record, indent=1))
    return True


def find_shapes(root: str | Path, spec: ShapesSpec = ShapesSpec()) -> bool:
    """Whether the data set lies below ``root``, every file with the recorded content.

    Args:
        root: Folder of the data set.
        spec: What it must have been generated from.

    Returns:
        False when it was never finished, or when a file is missing or was changed.

    Raises:
        ValueError: If ``root`` holds a data set that was made from another spec.
    """
    root = Path(root)
    try:
        record = json.loads((root / _RECORD).read_text())
        digests = record.pop('sha256')
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False
    wanted = dict(format=_FORMAT, **asdict(spec))
    if record != wanted:
        raise ValueError(f'{root} holds another generated data set: it was made from {record}, '
                         f'wanted is {wanted}. Remove that folder or give another one.')
    return all(_digest(root / path) == digest for path, digest in digests.items())


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, None when it is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _split_files(name: str, split: int, count: int, seed: int):
    """Yield (path below the root, content) of all files of a split, the annotations last."""
    images, annotations = [], []
    for index in range(count):
        rng = np.random.default_rng((seed, split, index))
        image, objects = _render(index, rng)
        file_name = f'{index:06d}.jpg'
        yield f'{name}/{file_name}', _encode(image)
        images.append(dict(id=index + 1, file_name=file_name, width=IMAGE_SIZE, height=IMAGE_SIZE))
        annotations += [dict(image_id=index + 1, **each) for each in objects]
    for number, annotation in enumerate(annotations, start=1):
        annotation['id'] = number
    categories = [
        dict(id=number, name=label, supercategory='shape')
        for number, label in enumerate(CLASSES, start=1)
    ]
    coco = dict(
        info=dict(description='generated shapes', version=str(_FORMAT)),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=categories)
    yield f'annotations/{name}.json', json.dumps(coco).encode()


def _encode(image: np.ndarray) -> bytes:
    """JPEG bytes of an image."""
    encoded, buffer = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert encoded
    return buffer.tobytes()


def _render(index: int, rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """One image and the COCO fields (category, box, area, iscrowd) of its objects."""
    image = textured_background(IMAGE_SIZE, rng)
    plan = _PLANS[index % len(_PLANS)]
    # A permutation per image keeps the classes balanced and unrelated to the size.
    labels = rng.permutation(len(CLASSES))
    boxes: list[np.ndarray] = []
    covered: list[float] = []
    objects = []
    for level, label in zip(plan, labels):
        polygon = _place(CLASSES[label], level, boxes, covered, rng)
        if polygon is None:
            continue
        draw_shape(image, polygon, rng)
        x1, y1, x2, y2 = (round(float(value), 2) for value in boxes[-1])
        width, height = round(x2 - x1, 2), round(y2 - y1, 2)
        objects.append(
            dict(
                category_id=int(label) + 1,
                bbox=[x1, y1, width, height],
                area=round(width * height, 2),
                iscrowd=0))
    return image, objects


def _place(name: str, level: int, boxes: list[np.ndarray], covered: list[float],
           rng: np.random.Generator) -> np.ndarray | None:
    """Find a spot that hides little of the earlier objects; appends to boxes and covered."""
    size = rng.uniform(*_SIDES[level])
    aspect = np.exp(rng.uniform(-0.3, 0.3))
    polygon = shape_polygon(name, size, aspect, rng.uniform(-0.35, 0.35))
    extent = polygon.max(axis=0)
    for _ in range(_PLACEMENT_TRIES):
        corner = rng.uniform(1, IMAGE_SIZE - 1 - extent)
        box = np.concatenate([corner, corner + extent])
        newly = [_covered_share(earlier, box) for earlier in boxes]
        if all(old + new <= _MAX_COVERED for old, new in zip(covered, newly)):
            covered[:] = [old + new for old, new in zip(covered, newly)] + [0.0]
            boxes.append(box)
            return polygon + corner
    return None


def _covered_share(box: np.ndarray, cover: np.ndarray) -> float:
    """Share of ``box`` that lies below ``cover``, both (x1, y1, x2, y2)."""
    sides = np.minimum(box[2:], cover[2:]) - np.maximum(box[:2], cover[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(box[2:] - box[:2]))
