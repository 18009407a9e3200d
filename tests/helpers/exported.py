"""Small ONNX files with mmaqd's metadata: they see objects where pixels say so."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmaqd.export.onnx.builder import Builder

# In input pixels; the third is the padding's, the last two rows are unused.
BOXES = np.array([[8, 16, 24, 40], [0, 0, 64, 48], [50, 40, 64, 48], [1, 1, 9, 9], [0, 0, 0, 0]],
                 np.float32)
SCORES = np.array([.75, .5, .4, 0, 0], np.float32)
LABELS = np.array([1, 0, 1, -1, -1], np.int64)


def recipe(**changes: Any) -> dict[str, Any]:
    """Metadata of a file whose input has 48 x 64 pixels; the pad value tells channels apart."""
    return {
        'version': 1, 'classes': ['cat', 'dog'], 'size': [48, 64], 'batch': 1, 'dynamic': False,
        'raw': False, 'engine': 'onnxruntime', 'integer': True,
        'resize': {'scale': [64, 48], 'keep_ratio': True},
        'pad': {'divisor': 16, 'value': [124, 116, 104]}, 'color': 'rgb',
        'thresholds': {'score_thr': .05}, **changes,
    }  # yapf: disable


def exported_file(path: Path, meta: dict[str, Any] | None = None, brightness: float = 0) -> Path:
    """A file that finds BOXES; ``brightness`` times the mean of an input is added to its scores."""
    meta = recipe() if meta is None else meta
    batch = meta['batch']
    build = Builder()
    size = ['height', 'width'] if meta['dynamic'] else meta['size']
    build.input('input', np.uint8, [batch, 3, *size])
    image = build.node('Cast', ['input'], 'image', to=1)
    mean = build.node('ReduceMean', [image], 'mean', axes=[2, 3])
    mean = build.node('ReduceMean', [mean], 'mean', axes=[1])
    mean = build.node('Reshape', [mean, build.constant([batch, 1, 1], np.int64)], 'mean')
    dets = np.concatenate([BOXES, SCORES[:, None]], 1)
    slope = np.zeros((len(SCORES), 5), np.float32)
    slope[SCORES > 0, 4] = brightness
    added = build.node('Mul', [mean, build.constant(slope)], 'added')
    build.node('Add', [build.constant(np.tile(dets, (batch, 1, 1))), added], 'dets')
    build.node('Identity', [build.constant(np.tile(LABELS, (batch, 1)))], 'labels')
    model = build.model(['dets', 'labels'], mmaqd=json.dumps(meta))
    path.write_bytes(model.SerializeToString())
    return path
