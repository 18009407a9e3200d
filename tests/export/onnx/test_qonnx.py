"""QONNX models give the twin's codes in the qonnx package."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from mmaqd.export.network import IntegerNetwork
from mmaqd.export.onnx import to_qonnx
from mmaqd.export.onnx.writer import prediction_names
from tests.helpers.engines import need
from tests.helpers.integer_graphs import random_detector

HEIGHT, WIDTH = 24, 32


@pytest.mark.parametrize(('bits', 'signed'), [(2, False), (4, True), (5, False), (8, False)])
def test_every_edge_has_the_codes_of_the_twin(bits: int, signed: bool) -> None:
    need('onnx', 'qonnx')
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes
    graph = random_detector(bits, bits, bits, signed=signed, pad_code=int(signed))
    model = ModelWrapper(to_qonnx(graph, HEIGHT, WIDTH)).transform(InferShapes())
    image = np.random.default_rng(0).integers(0, 256, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    found = execute_onnx(model, {'input': image}, return_full_exec_context=True)
    expected = IntegerNetwork(graph).run(torch.from_numpy(image))
    names = prediction_names(graph, ('cls_score', 'bbox_pred'))
    for edge, codes in expected.items():
        np.testing.assert_array_equal(found[names.get(edge, edge)], codes.numpy(), err_msg=edge)


@pytest.mark.parametrize('bits', [2, 3, 4, 7])
def test_odd_weights_have_half_a_zero_point(bits: int) -> None:
    need('onnx')
    import onnx
    graph, largest = random_detector(0, bits, bits), 2**bits - 1
    numbers = np.arange(graph.weights['tower'].size).reshape(graph.weights['tower'].shape)
    graph.weights['tower'] = (2 * (numbers % 2**bits) - largest).astype(np.int8)
    model = to_qonnx(graph, HEIGHT, WIDTH)
    values = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    node = next(each for each in model.graph.node if each.output[0] == 'tower.weight')
    assert (node.op_type, node.domain) == ('IntQuant', 'qonnx.custom_op.general')
    assert [float(values[each]) for each in node.input[1:]] == [2, largest / 2, bits]
