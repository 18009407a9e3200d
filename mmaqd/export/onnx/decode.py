"""Nodes from prediction maps to ``dets`` (N, K, 5) and ``labels`` (N, K), as MMDetection predicts.

Maps are never transposed: a candidate is found by its place in the flattened map (prior, class,
row, column), and only candidates are decoded.
"""
from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from .builder import Builder
from .settings import Decoding, Level

_WH_RATIO_CLIP = 16 / 1000  # as MMDetection's delta2bbox
_DROPPED = -1.0  # the score of what is no candidate


class _Candidates(NamedTuple):
    scores: str  # (N, k)
    labels: str  # (N, k)
    boxes: str  # (N, k, 4)


def add_detections(builder: Builder, decoding: Decoding, kinds: Sequence[Sequence[str]],
                   limits: str) -> tuple[str, str]:
    """Add the nodes that make detections of prediction maps.

    Detections are those of MMDetection's ``predict(rescale=False)`` but for ties, in the order of
    their scores, then rows of zeros with the label -1.

    Args:
        builder: The model in the making.
        decoding: How to.
        kinds: Names of the maps, float32 (N, A C, H, W): scores, boxes, and centerness if there
            is; one for each level.
        limits: Name of a float32 tensor (4,): width, height, width, height of the image.

    Returns:
        ``('dets', 'labels')``: float32 (N, K, 5) boxes x1, y1, x2, y2 with their scores, and
        int64 (N, K); K is ``max_per_img``.
    """
    writer = _Writer(builder)
    found = [
        _candidates(writer, decoding, level, *maps)
        for level, *maps in zip(decoding.levels, *kinds)
    ]
    scores, labels, boxes = (
        writer('Concat', *parts, axis=1) if len(parts) > 1 else parts[0] for parts in zip(*found))
    if decoding.clip_border:
        boxes = writer('Min', writer('Max', boxes, writer.real(0)), limits)
    scores = _without_tiny(writer, decoding, scores, boxes)
    chosen = _suppress(writer, decoding, _Candidates(scores, labels, boxes))
    return _gathered(writer, decoding, _Candidates(scores, labels, boxes), chosen)


class _Writer:
    """Short names for what is added over and over."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.builder.node(operator, inputs, f'decode_{operator.lower()}', **attributes)

    def real(self, value: Any) -> str:
        return self.builder.constant(value, np.float32)

    def whole(self, value: Any) -> str:
        return self.builder.constant(value, np.int64)

    def top(self, values: str, count: str) -> list[str]:
        names = [self.builder.free_name(f'decode_top_{part}') for part in ('values', 'places')]
        return self.builder.node_with_outputs('TopK', [values, count], names, axis=1)

    def flat(self, values: str) -> str:
        """(N, ...) to (N, -1)."""
        return self('Reshape', values, self.whole([0, -1]))

    def reduced(self, operator: str, values: str, axes: list[int], keepdims: int) -> str:
        return self.builder.reduced(operator, values, axes, f'decode_{operator.lower()}', keepdims)

    def size(self, values: str, start: int, end: int) -> str:
        return self('Slice', self('Shape', values), self.whole([start]), self.whole([end]))

    def real_of(self, values: str) -> str:
        return self('Cast', values, to=self.builder.onnx.TensorProto.FLOAT)


def _candidates(writer: _Writer,
                decoding: Decoding,
                level: Level,
                cls_score: str,
                bbox_pred: str,
                centerness: str | None = None) -> _Candidates:
    """The best ``nms_pre`` of all (box, class) of a level above the threshold."""
    flat = writer.flat(cls_score)
    count = writer('Min', writer.size(flat, 1, 2), writer.whole([decoding.nms_pre]))
    logits, places = writer.top(flat, count)
    width = writer.size(cls_score, 3, 4)
    area = writer('Mul', writer.size(cls_score, 2, 3), width)
    channel, pixel = writer('Div', places, area), writer('Mod', places, area)
    classes = writer.whole(decoding.num_classes)
    prior, label = writer('Div', channel, classes), writer('Mod', channel, classes)
    scores = _above(writer, writer('Sigmoid', logits), decoding.score_thr)
    if centerness is not None:
        place = writer('Add', writer('Mul', prior, area), pixel)
        factors = writer('GatherElements', writer.flat(centerness), place, axis=1)
        scores = writer('Where', writer('Less', scores, writer.real(0)), scores,
                        writer('Mul', scores, writer('Sigmoid', factors)))
    predicted = _predictions(writer, bbox_pred, prior, pixel, area)
    corner = _corner(writer, level, pixel, width)
    if decoding.means is None:
        boxes = _from_distances(
            writer,
            writer('Add', corner, writer.real(level.priors[0] * np.float32(level.stride[::-1]))),
            predicted)
    else:
        anchors = writer('Gather', writer.real(level.priors), prior)
        corners = writer('Concat', corner, corner, axis=2)
        boxes = _from_deltas(writer, decoding, writer('Add', anchors, corners), predicted)
    return _Candidates(scores, label, boxes)


def _above(writer: _Writer, scores: str, threshold: float) -> str:
    return writer('Where', writer('Greater', scores, writer.real(threshold)), scores,
                  writer.real(_DROPPED))


def _predictions(writer: _Writer, bbox_pred: str, prior: str, pixel: str, area: str) -> str:
    """The four numbers of each candidate, (N, k, 4)."""
    first = writer('Add', writer('Mul', prior, writer('Mul', area, writer.whole(4))), pixel)
    steps = writer('Mul', writer.whole([0, 1, 2, 3]), area)
    places = writer('Add', writer('Unsqueeze', first, writer.whole([2])), steps)
    values = writer('GatherElements', writer.flat(bbox_pred), writer.flat(places), axis=1)
    return writer('Reshape', values, writer.whole([0, -1, 4]))


def _corner(writer: _Writer, level: Level, pixel: str, width: str) -> str:
    """x, y in the image of each candidate's cell, (N, k, 2)."""
    parts = [
        writer('Unsqueeze',
               writer('Mul', writer.real_of(writer(operator, pixel, width)), writer.real(stride)),
               writer.whole([2]))
        for operator, stride in (('Mod', level.stride[1]), ('Div', level.stride[0]))
    ]
    return writer('Concat', *parts, axis=2)


def _halves(writer: _Writer, values: str) -> tuple[str, str]:
    """(..., 4) to twice (..., 2)."""
    return tuple(
        writer('Slice', values, writer.whole([start]), writer.whole([start + 2]), writer.whole([2]))
        for start in (0, 2))


def _from_distances(writer: _Writer, points: str, distances: str) -> str:
    before, behind = _halves(writer, distances)
    return writer('Concat', writer('Sub', points, before), writer('Add', points, behind), axis=2)


def _from_deltas(writer: _Writer, decoding: Decoding, anchors: str, deltas: str) -> str:
    deltas = writer('Add', writer('Mul', deltas, writer.real(decoding.stds)),
                    writer.real(decoding.means))
    low, high = _halves(writer, anchors)
    moved, grown = _halves(writer, deltas)
    center = writer('Mul', writer('Add', low, high), writer.real(0.5))
    size = writer('Sub', high, low)
    moved = writer('Mul', size, moved)
    most = float(np.abs(np.log(_WH_RATIO_CLIP)))
    least = -most
    if decoding.center_clamp is not None:
        moved = writer('Clip', moved, writer.real(-decoding.center_clamp),
                       writer.real(decoding.center_clamp))
        least = -np.inf
    grown = writer('Clip', grown, writer.real(least), writer.real(most))
    center = writer('Add', center, moved)
    half = writer('Mul', writer('Mul', size, writer('Exp', grown)), writer.real(0.5))
    return writer('Concat', writer('Sub', center, half), writer('Add', center, half), axis=2)


def _without_tiny(writer: _Writer, decoding: Decoding, scores: str, boxes: str) -> str:
    if decoding.min_bbox_size >= 0:
        low, high = _halves(writer, boxes)
        smaller = writer.reduced('ReduceMin', writer('Sub', high, low), [2], keepdims=0)
        scores = writer('Where', writer('Greater', smaller, writer.real(decoding.min_bbox_size)),
                        scores, writer.real(_DROPPED))
    if decoding.nms_score_threshold > 0:
        scores = _above(writer, scores, decoding.nms_score_threshold)
    return scores


def _suppress(writer: _Writer, decoding: Decoding, candidates: _Candidates) -> str:
    """Rows (image, 0, candidate) of what NMS keeps, the classes moved apart as by mmcv."""
    scores, labels, boxes = candidates
    kept = writer('Unsqueeze', writer('GreaterOrEqual', scores, writer.real(0)), writer.whole([2]))
    largest = writer.reduced('ReduceMax', writer('Where', kept, boxes, writer.real(0)), [1, 2], 1)
    step = writer('Add', largest, writer.real(1))
    apart = writer('Mul', writer('Unsqueeze', writer.real_of(labels), writer.whole([2])), step)
    return writer('NonMaxSuppression', writer('Add', boxes, apart),
                  writer('Unsqueeze', scores, writer.whole([1])),
                  writer.whole([decoding.max_per_img]), writer.real([decoding.iou_threshold]),
                  writer.real([_DROPPED / 2]))


def _gathered(writer: _Writer, decoding: Decoding, candidates: _Candidates,
              chosen: str) -> tuple[str, str]:
    """What was chosen in a fixed number of rows for each image."""
    batch = writer.size(candidates.scores, 0, 1)
    image = writer('Gather', chosen, writer.whole([0]), axis=1)  # (M, 1)
    index = writer('Gather', chosen, writer.whole([2]), axis=1)
    source = writer('Concat', image, index, axis=1)
    target = writer('Concat', image, _rank_in_image(writer, image), axis=1)
    rows = writer('Concat', batch, writer.whole([decoding.max_per_img]), axis=0)
    values = [
        writer('Unsqueeze', writer('GatherND', candidates.scores, source), writer.whole([1])),
        writer.real_of(
            writer('Unsqueeze', writer('GatherND', candidates.labels, source), writer.whole([1]))),
        writer('GatherND', candidates.boxes, source)
    ]
    empty = writer('Expand', writer.real([[[0, -1, 0, 0, 0, 0]]]),
                   writer('Concat', rows, writer.whole([6]), axis=0))
    filled = writer('ScatterND', empty, target, writer('Concat', *values, axis=1))
    return _sorted(writer, decoding, filled)


def _rank_in_image(writer: _Writer, image: str) -> str:
    """How many rows before each row belong to the same image, (M, 1)."""
    others = writer('Transpose', image, perm=[1, 0])
    same = writer.real_of(writer('Equal', image, others))
    number = writer(
        'Sub',
        writer('CumSum', writer('Add', writer('Mul', image, writer.whole(0)), writer.whole(1)),
               writer.whole(0)), writer.whole(1))
    earlier = writer.real_of(writer('Less', writer('Transpose', number, perm=[1, 0]), number))
    count = writer('ReduceSum', writer('Mul', same, earlier), writer.whole([1]), keepdims=1)
    return writer('Cast', count, to=writer.builder.onnx.TensorProto.INT64)


def _sorted(writer: _Writer, decoding: Decoding, rows: str) -> tuple[str, str]:
    """Rows (score, label, box) in the order of their scores, as ``dets`` and ``labels``."""
    scores = writer('Squeeze',
                    writer('Slice', rows, writer.whole([0]), writer.whole([1]), writer.whole([2])),
                    writer.whole([2]))
    scores, order = writer.top(scores, writer.whole([decoding.max_per_img]))
    places = writer('Unsqueeze', order, writer.whole([2]))
    rows = writer('GatherND', rows, places, batch_dims=1)
    label, boxes = (writer('Slice', rows, writer.whole([start]), writer.whole([end]),
                           writer.whole([2])) for start, end in ((1, 2), (2, 6)))
    dets = writer.builder.node_with_outputs(
        'Concat', [boxes, writer('Unsqueeze', scores, writer.whole([2]))], ['dets'], axis=2)[0]
    label = writer('Squeeze', label, writer.whole([2]))
    labels = writer.builder.node_with_outputs(
        'Cast', [label], ['labels'], to=writer.builder.onnx.TensorProto.INT64)[0]
    return dets, labels
