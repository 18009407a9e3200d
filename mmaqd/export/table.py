"""An integer graph as text."""
from __future__ import annotations

from terminaltables import AsciiTable

from .graph import Codes, Conv, IntegerGraph, Node, Requantization, Requantize

_HEADER = ['node', 'computes', 'reads', 'gives', 'bound', 'M', 'k', 'unit']


def format_graph(graph: IntegerGraph) -> str:
    """A row for each node: its codes, the bound of its sums, multipliers, shifts and units."""
    lines = [_row(graph, node) for node in graph.nodes]
    return '\n'.join([AsciiTable([_HEADER, *lines]).table, *graph.notes])


def _row(graph: IntegerGraph, node: Node) -> list:
    source, edge = graph.edges[node.inputs[0]], graph.edges[node.output]
    multiplier = shift = bound = ''
    if isinstance(node, (Conv, Requantize)) and node.requantization is not None:
        multiplier, shift = _ranges(node.requantization)
    if isinstance(node, Conv):
        bound = f'{node.bound:,}'
    return [
        node.name,
        type(node).__name__,
        _range(source),
        _range(edge), bound, multiplier, shift,
        f'{edge.unit:.4g}' if isinstance(edge, Codes) else ''
    ]


def _range(edge: object) -> str:
    return f'{edge.qmin}..{edge.qmax}' if isinstance(edge, Codes) else 'real'


def _ranges(requantization: Requantization) -> tuple[str, str]:
    return tuple(f'{each.min()}..{each.max()}' if each.min() < each.max() else str(each.min())
                 for each in (requantization.multiplier, requantization.shift))
