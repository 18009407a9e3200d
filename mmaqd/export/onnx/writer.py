"""Integer graphs to ONNX models."""
from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

import numpy as np

from mmaqd.export.graph import Codes, IntegerGraph

from .builder import Builder
from .onnxruntime import OnnxRuntimeSpeller
from .openvino import OpenVinoSpeller
from .packed import packed_versions

if TYPE_CHECKING:
    import onnx

ENGINES = {'onnxruntime': OnnxRuntimeSpeller, 'openvino': OpenVinoSpeller}
KINDS = ('cls_score', 'bbox_pred', 'centerness')


def to_onnx(graph: IntegerGraph,
            height: int,
            width: int,
            batch: int = 1,
            *,
            dynamic: bool = False,
            engine: str = 'onnxruntime',
            packed: bool = False,
            vnni: bool = False,
            kinds: Sequence[str] = KINDS) -> onnx.ModelProto:
    """An integer graph as an ONNX model that gives the same integers as the twin.

    Its input is ``input``, uint8 (N, C, H, W); its outputs are the prediction maps, float32, kind
    by kind and level by level, named like ``cls_score.0``. The tensor of an edge of codes has the
    edge's name; codes that can be negative are stored with ``-qmin`` added.

    Args:
        graph: The integers.
        height: Of the image.
        width: Of the image.
        batch: Number of images.
        dynamic: Let the model take images of any number and size; the above are ignored then.
        engine: ``'onnxruntime'`` or ``'openvino'``: whose integer kernels the operators are chosen
            for. The numbers are the same.
        packed: Store weights of up to 4 bits as 4-bit integers (2-bit ones where the opset has
            them); for ONNX Runtime.
        vnni: Write for processors whose int8 kernels add products in 32 bits (VNNI, AMX). On others
            8-bit weights of 8-bit inputs would saturate there; they are spelled in slower ways.
        kinds: Names of the kinds of predictions.

    Raises:
        ValueError: The engine is unknown, or runs no packed weights, or an edge has more than 8
            bits.
        MissingPackage: The package onnx is not installed.
    """
    builder = Builder(*packed_versions(graph)) if packed else Builder()
    channels = image_channels(graph)
    shape = ['batch', channels, 'height', 'width'] if dynamic else [batch, channels, height, width]
    image = builder.input(graph.image.name, np.uint8, shape)
    predictions = add_network(
        builder, graph, image, engine=engine, packed=packed, vnni=vnni, kinds=kinds)
    return builder.model([name for levels in predictions for name in levels])


def add_network(builder: Builder,
                graph: IntegerGraph,
                image: str,
                *,
                engine: str = 'onnxruntime',
                packed: bool = False,
                vnni: bool = False,
                kinds: Sequence[str] = KINDS) -> tuple[tuple[str, ...], ...]:
    """Add the nodes of an integer graph to a model.

    Args:
        builder: The model in the making; of :func:`packed_versions` for packed weights.
        graph: The integers.
        image: Name of the tensor of the image, uint8 (N, C, H, W).
        engine: As for :func:`to_onnx`.
        packed: As for :func:`to_onnx`.
        vnni: As for :func:`to_onnx`.
        kinds: As for :func:`to_onnx`.

    Returns:
        Names of the prediction maps, float32; one tuple over the levels for each kind.
    """
    _check(graph, engine, packed)
    tensors = {graph.image.name: image}
    renamed = prediction_names(graph, kinds)
    speller = ENGINES[engine](builder, graph, tensors, packed, vnni)
    for node in graph.nodes:
        tensors[node.output] = speller.spell(node, renamed.get(node.output, node.output))
    return tuple(tuple(tensors[name] for name in kind) for kind in graph.outputs)


def with_edges(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model that gives the codes of every edge too, to see where something differs."""
    import onnx
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    given = {each.name for each in copy.graph.output}
    copy.graph.output.extend(each for each in copy.graph.value_info
                             if each.type.tensor_type.elem_type == onnx.TensorProto.UINT8
                             and each.name not in given and '/' not in each.name)
    return copy


def prediction_names(graph: IntegerGraph, kinds: Sequence[str]) -> dict[str, str]:
    """Names of the outputs by edge."""
    names = {}
    for number, levels in enumerate(graph.outputs):
        kind = kinds[number] if number < len(kinds) else f'output{number}'
        names.update({name: f'{kind}.{level}' for level, name in enumerate(levels)})
    return names


def image_channels(graph: IntegerGraph) -> int:
    """Number of channels of the image."""
    first = next(node for node in graph.nodes if node.inputs[0] == graph.image.name)
    return graph.weights[first.weight].shape[1] * first.groups


def _check(graph: IntegerGraph, engine: str, packed: bool) -> None:
    if engine not in ENGINES:
        raise ValueError(f'engine is {engine!r}; files are written for {sorted(ENGINES)}.')
    if packed and engine != 'onnxruntime':
        raise ValueError(f'packed weights run on integer kernels in ONNX Runtime only; write the '
                         f'file for {engine!r} without packed.')
    for edge in graph.edges.values():
        if isinstance(edge, Codes) and edge.qmax - min(edge.qmin, 0) > 255:
            raise ValueError(f'{edge.name} has codes {edge.qmin}..{edge.qmax}; the engines run 8 '
                             'bits. Convert with a stream_bit_width of 8.')
