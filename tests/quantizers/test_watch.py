"""When inputs are looked at, and when they must not be."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.quantizers import LIQActivationQuantizer, watch
from mmaqd.quantizers.watch import InputWatch, can_look


@pytest.fixture
def said(monkeypatch) -> list[str]:
    texts = []
    monkeypatch.setattr(watch, 'print_log', lambda text, *_, **__: texts.append(text))
    return texts


def test_the_first_call_and_every_101st_of_a_training() -> None:
    watches = {training: InputWatch() for training in (True, False)}
    due = {
        training: [call for call in range(500) if each.is_due(training)]
        for training, each in watches.items()
    }
    assert due == {True: [0, 101, 202, 303, 404], False: [0]}


def test_each_level_of_a_shared_conv_has_its_turn() -> None:
    each = InputWatch()
    levels = {call % 5 for call in range(101 * 5) if each.is_due(True)}
    assert levels == set(range(5))


def test_loading_begins_anew(said) -> None:
    quantizer = LIQActivationQuantizer(4, start='constant').eval()
    state = quantizer.state_dict()
    for _ in range(2):
        quantizer(torch.tensor([1.0, -2.0]))
        quantizer(torch.tensor([1.0, -2.0]))
        quantizer.load_state_dict(state)
    assert len(said) == 2 and all('-2' in text for text in said)


def test_signed_codes_are_no_matter(said) -> None:
    LIQActivationQuantizer(4, start='constant', signed=True)(torch.tensor([-1.0]))
    assert not said


def test_tensors_without_values_are_not_read(said) -> None:
    assert not can_look(torch.empty(2, device='meta'))
    assert not can_look(torch.empty(0))
    assert can_look(nn.Parameter(torch.ones(1)))


def test_tracing_and_compiling_look_at_nothing(said) -> None:
    quantizer = LIQActivationQuantizer(4, start='constant').eval()
    x = torch.tensor([-1.0, 1.0])
    torch.jit.trace(quantizer, x, check_trace=False)
    torch.compile(lambda x: quantizer(x), backend='eager', fullgraph=True)(x)
    assert not said
