"""Layers whose weight another module reads, instead of calling them: no quantizer would see it."""
from __future__ import annotations

import ast
import inspect
import textwrap
from functools import lru_cache
from typing import Iterator

import torch.nn as nn

# What asks a weight for something else than its values.
_HARMLESS = {'device', 'dtype', 'shape', 'ndim', 'size', 'dim', 'numel', 'data', 'requires_grad'}
_SETUP = {'__init__', 'init_weights', '_init_weights', 'reset_parameters', '_init_layers'}


def weights_read(model: nn.Module) -> dict[nn.Module, str]:
    """The modules whose ``weight`` the code of a module above reads without ever calling them.

    A class derived from torch's attention reads that of its ``out_proj``. (torch's own attention
    is replaced by one that calls it.)

    Returns:
        Class name of the reader, by module.
    """
    found: dict[nn.Module, str] = {}
    for module in model.modules():
        reads, calls = _attributes_used(type(module))
        if isinstance(module, nn.MultiheadAttention) and type(module) is not nn.MultiheadAttention:
            reads = {*reads, ('out_proj', )}
        for path in reads:
            child = _resolve(module, path)
            if child is not None and not any(path[:len(call)] == call for call in calls):
                found[child] = type(module).__name__
    return found


def _resolve(module: nn.Module, path: tuple[str, ...]) -> nn.Module | None:
    for name in path:
        module = getattr(module, '_modules', {}).get(name)
    return module


@lru_cache(maxsize=None)
def _attributes_used(cls: type) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    """Paths ``a.b`` of which the methods of a class read ``self.a.b.weight``, and which they call.
    """
    reads: set[tuple[str, ...]] = set()
    calls: set[tuple[str, ...]] = set()
    for method in _methods(cls):
        harmless = set()
        for node in ast.walk(method):  # from the outside in
            if isinstance(node, ast.Call):
                calls.update(filter(None, [_path(node.func)]))
            elif isinstance(node, ast.Attribute) and node.attr in _HARMLESS:
                harmless.add(node.value)
            elif isinstance(node, ast.Attribute) and node.attr == 'weight' and node not in harmless:
                reads.update(filter(None, [_path(node.value)]))
    return reads, calls


def _methods(cls: type) -> Iterator[ast.AST]:
    if cls.__module__.startswith('torch.'):
        return
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name in _SETUP or method.__module__.startswith(('torch.', 'mmengine.')):
            continue
        try:
            yield ast.parse(textwrap.dedent(inspect.getsource(method)))
        except (OSError, SyntaxError):  # made without a file
            continue


def _path(node: ast.AST) -> tuple[str, ...] | None:
    """('a', 'b') for the expression ``self.a.b``."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return tuple(names) if names and isinstance(node, ast.Name) and node.id == 'self' else None
