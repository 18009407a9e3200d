"""The twin as a module: its state, and its place in a detector."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope

from mmaqd.export import IntegerNetwork, lower_detector, set_graph
from mmaqd.export.serialize import GraphFormatError, graph_from_tensors, graph_to_tensors
from mmaqd.registry import MODELS
from tests.helpers.detector import DETECTORS, model_cfg
from tests.helpers.networks import TinyDetector, calibrated, image, inputs, normalized, weights


@pytest.fixture(scope='module')
def network() -> IntegerNetwork:
    torch.manual_seed(0)
    model = calibrated(TinyDetector(weights(4), inputs(4)), image(0))
    return IntegerNetwork(lower_detector(model, [normalized(image(0))]))


def test_an_empty_network_becomes_the_one_that_is_loaded(network: IntegerNetwork) -> None:
    loaded = IntegerNetwork()
    loaded.load_state_dict(network.state_dict())
    for kind, own in zip(network(image(1)), loaded(image(1))):
        for expected, found in zip(kind, own):
            torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert str(loaded.graph) == str(network.graph)


def test_its_state_is_plain_tensors(network: IntegerNetwork, tmp_path) -> None:
    path = tmp_path / 'twin.pth'
    torch.save(network.state_dict(), path)
    state = torch.load(path, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_an_empty_network_says_what_to_load() -> None:
    with pytest.raises(RuntimeError, match='convert_integer.py'):
        IntegerNetwork()(image(0))


@pytest.mark.parametrize('size', [(24, 32), (17, 23), (48, 40)])
def test_it_takes_any_size(network: IntegerNetwork, size: tuple[int, int]) -> None:
    cls, _ = network(image(0, *size))
    assert cls[0].shape[2:] == tuple(-(-side // 4) for side in size)


def test_keeping_edges_changes_nothing(network: IntegerNetwork) -> None:
    edges = network.run(image(2))
    for names, kind in zip(network.graph.outputs, network(image(2))):
        for name, found in zip(names, kind):
            torch.testing.assert_close(found, edges[name], atol=0, rtol=0)


@pytest.mark.parametrize('damage', ['text', 'version', 'array', 'class', 'none'])
def test_a_damaged_graph_is_refused(network: IntegerNetwork, damage: str) -> None:
    tensors = graph_to_tensors(network.graph)
    text = bytes(tensors['graph'].numpy()).decode()
    if damage == 'array':
        del tensors[next(key for key in tensors if key != 'graph')]
    elif damage == 'none':
        tensors.clear()
    else:
        changed = dict(
            text=text[:-5],
            version=text.replace('"version": 1', '"version": 99', 1),
            **{'class': text.replace('"class": "Conv"', '"class": "eval"', 1)})[damage]
        tensors['graph'] = torch.frombuffer(bytearray(changed.encode()), dtype=torch.uint8)
    with pytest.raises(GraphFormatError, match='version' if damage == 'version' else 'no integer'):
        graph_from_tensors(tensors)


def low_bit_detector(name: str) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(model_cfg(name, bits=4))
    return calibrated(model, image(0, 128, 128))


@pytest.mark.parametrize('name', DETECTORS)
def test_it_takes_the_place_of_the_network_of_a_detector(name: str, tmp_path) -> None:
    model = low_bit_detector(name)
    graph = lower_detector(model, [normalized(image(0, 128, 128, batch=1))])
    cfg = model_cfg(name, bits=4)
    with DefaultScope.overwrite_default_scope('mmdet'):
        twin, loaded = (MODELS.build(dict(cfg, type='mmaqd.IntegerDetector')) for _ in range(2))
    set_graph(twin, graph)
    loaded.load_state_dict(twin.state_dict())
    images = image(1, 128, 160, batch=1)
    expected = IntegerNetwork(graph)(images)
    with torch.no_grad():
        found = loaded.eval()(normalized(images), mode='tensor')
    assert isinstance(loaded.bbox_head, type(model.bbox_head))
    for kind, own in zip(expected, found):
        for each, other in zip(kind, own):
            torch.testing.assert_close(other, each, atol=0, rtol=0)


def test_it_refuses_to_be_trained() -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        twin = MODELS.build(dict(model_cfg('FCOS', bits=4), type='mmaqd.IntegerDetector'))
    with pytest.raises(RuntimeError, match="can't be trained"):
        twin.bbox_head.loss((), [])
