"""Streams that were trained are what the integers are stored in."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from mmaqd.export import IntegerNetwork, lower_detector
from mmaqd.export.graph import Add, Codes, IntegerGraph, MaxPool
from tests.conversion.test_streams import ready, streams_of
from tests.helpers.detector import make_batch
from tests.helpers.integer_reference import run

BATCH = make_batch()


def added(graph: IntegerGraph) -> list:
    """The codes of all operands and sums."""
    return [graph.edges[name] for node in graph.nodes if isinstance(node, Add)
            for name in (*node.inputs, node.output)]  # yapf: disable


def normalized(model: torch.nn.Module) -> torch.Tensor:
    return model.data_preprocessor(BATCH)['inputs']


@pytest.mark.parametrize('detector', ['RetinaNet', 'FCOS', 'ATSS'])
def test_units_are_those_that_were_trained(detector: str) -> None:
    model = ready(detector=detector)
    streams = streams_of(model)
    for index, stream in enumerate(streams.values()):
        stream.step_size.data.mul_(1 + index / 100)  # as training would, away from the maximum
    graph = lower_detector(model, [normalized(model)])
    units = {name: float(each.step_size.detach()) for name, each in streams.items()}
    shared = {units.pop('neck.out_stream'), units.pop('bbox_head.stream', 0.0)} - {0.0}
    assert sorted({edge.unit for edge in added(graph)}) == pytest.approx(sorted(units.values()))
    assert {edge.qmax for edge in added(graph)} == {127, 255}
    assert shared <= {edge.unit for edge in graph.edges.values() if isinstance(edge, Codes)}


def test_bits_are_those_that_were_trained() -> None:
    model = ready(stream=6)
    graph = lower_detector(model, [normalized(model)], stream_bit_width=12)
    assert {edge.qmax for edge in added(graph)} == {31, 63}


def test_the_twin_is_exact_and_starts_out_as_what_was_trained() -> None:
    model, images = ready(), torch.stack(BATCH['inputs']).flip(1)
    with torch.no_grad():
        for _ in range(20):  # BN's statistics come near
            model.train()(normalized(model))
    model.eval()
    graph = lower_detector(model, [normalized(model)])
    edges, expected = IntegerNetwork(graph).run(images), run(graph, images.numpy())
    for name, value in expected.items():
        np.testing.assert_array_equal(edges[name].numpy(), value, err_msg=name)
    seen = {}
    stream = model.backbone.layer1[0].stream
    model.backbone.maxpool.register_forward_hook(lambda module, args, out: seen.update(out=out))
    with torch.no_grad():
        model(normalized(model))
    pooled = next(node.output for node in graph.nodes if isinstance(node, MaxPool))
    difference = (edges[pooled] - (seen['out'] / stream.step_size).round()).abs()
    assert edges[pooled].max() > 100 and difference.max() <= 4  # the stem has few digits of M
    assert difference.mean() < 0.2


def test_streams_trained_apart_can_not_be_added() -> None:
    model = ready()
    hooks = list(model.backbone.layer1[1]._forward_hooks.values())
    hooks[0].owner = model.backbone.layer2[0]
    with pytest.raises(ValueError, match='2 streams that were trained apart'):
        lower_detector(model, [normalized(model)])
