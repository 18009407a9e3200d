"""torch.export of detectors: a conv is one operator, whatever state the model is in."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from mmengine.registry import DefaultScope

from mmaqd.export import capture
from mmaqd.quantizers import UninitializedIntervalError
from mmaqd.registry import MODELS
from tests.helpers.detector import DETECTORS, model_cfg
from tests.helpers.networks import calibrated, image, normalized


def build(name: str) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        return MODELS.build(model_cfg(name, bits=4)).eval()


class Tensor(torch.nn.Module):

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: torch.Tensor) -> tuple:
        return self.detector(x, mode='tensor')


@pytest.mark.parametrize('name', DETECTORS)
def test_a_fresh_model_can_be_exported(name: str) -> None:
    program = torch.export.export(
        Tensor(build(name)), (torch.zeros(1, 3, 128, 128), ), strict=False)
    convs = sum('quant_conv2d' in str(node.target) for node in program.graph.nodes)
    backbone, neck, towers, predictions = 20, 8, 2, 2 if name == 'RetinaNet' else 3
    assert convs == backbone + neck + 5 * (towers + predictions)


@pytest.mark.parametrize('name', DETECTORS)
def test_the_exported_program_computes_what_eager_does(name: str) -> None:
    model = calibrated(build(name), image(0, 128, 128))
    x = normalized(image(1, 128, 128, batch=1))
    program = torch.export.export(Tensor(model), (x, ), strict=False)
    with torch.no_grad():
        for kind, own in zip(model(x, mode='tensor'), program.module()(x)):
            for expected, found in zip(kind, own):
                torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_what_is_captured_has_few_operators_and_names() -> None:
    captured = capture(calibrated(build('RetinaNet'), image(0, 128, 128)), 128, 128)
    operators = Counter(str(node.target) for node in captured.graph.nodes
                        if node.op == 'call_function')  # yapf: disable
    assert len(operators) == 7 and operators['mmaqd.quant_conv2d.default'] == 48
    assert 'bbox_head.retina_cls.weight' in captured.names.values()
    assert [len(kind) for kind in captured.outputs] == [5, 5]


def test_capturing_leaves_the_modes_alone() -> None:
    model = calibrated(build('FCOS'), image(0, 128, 128)).train()
    capture(model, 128, 128)
    assert model.training and model.bbox_head.training


def test_a_model_without_intervals_is_refused_by_name() -> None:
    with pytest.raises(UninitializedIntervalError, match='backbone.*among them.*calibrate.py'):
        capture(build('RetinaNet'), 128, 128)
