"""An integer graph as tensors, and back: its arrays, and the rest as JSON in a tensor of bytes."""
from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any, Mapping

import numpy as np
import torch
from torch import Tensor

from . import graph as graph_module
from .graph import IntegerGraph

VERSION = 1
_TEXT = 'graph'
_CLASSES = {
    name: getattr(graph_module, name)
    for name in ('Add', 'Apply', 'Codes', 'Conv', 'FloatConv', 'IntegerGraph', 'MaxPool',
                 'Quantize', 'Real', 'Requantization', 'Requantize', 'Upsample')
}


class GraphFormatError(ValueError):
    """What should be an integer graph is none, or one of another version."""


def graph_to_tensors(graph: IntegerGraph) -> dict[str, Tensor]:
    """The graph as tensors: ``graph``, uint8 text, and one for each array."""
    arrays: dict[str, Tensor] = {}
    text = json.dumps(dict(version=VERSION, graph=_plain(graph, 'graph', arrays)))
    arrays[_TEXT] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()
    return arrays


def graph_from_tensors(tensors: Mapping[str, Tensor]) -> IntegerGraph:
    """The graph that :func:`graph_to_tensors` wrote; nothing in it is run.

    Raises:
        GraphFormatError: It is none, damaged, or of another version.
    """
    try:
        content = json.loads(bytes(tensors[_TEXT].cpu().to(torch.uint8).numpy()).decode())
        if content['version'] != VERSION:
            raise GraphFormatError(f'The integer graph is of version {content["version"]}, this '
                                   f'mmaqd reads version {VERSION}: convert the model again.')
        return _object(content['graph'], tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, GraphFormatError):
            raise
        raise GraphFormatError(f'This is no integer graph of mmaqd, or a damaged one ({error!r}). '
                               'tools/deployment/convert_integer.py makes one.') from error


def _plain(value: Any, path: str, arrays: dict[str, Tensor]) -> Any:
    """A value as JSON; its arrays go into ``arrays``."""
    if is_dataclass(value):
        content = {
            each.name: _plain(getattr(value, each.name), f'{path}.{each.name}', arrays)
            for each in fields(value)
        }
        return {'class': type(value).__name__, **content}
    if isinstance(value, np.ndarray):
        arrays[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {'array': path}
    if isinstance(value, dict):
        return {'dict': [[key, _plain(each, f'{path}.{key}', arrays)]
                         for key, each in value.items()]}  # yapf: disable
    if isinstance(value, (tuple, list)):
        return [_plain(each, f'{path}.{index}', arrays) for index, each in enumerate(value)]
    return value


def _object(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(content, list):
        return tuple(_object(each, tensors) for each in content)
    if not isinstance(content, dict):
        return content
    if 'array' in content:
        return tensors[content['array']].cpu().numpy()
    if 'dict' in content:
        return {key: _object(each, tensors) for key, each in content['dict']}
    arguments = {key: _object(each, tensors) for key, each in content.items() if key != 'class'}
    return _CLASSES[content['class']](**arguments)
