"""The whole number that weights are multiplied by."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaqd.export import lower_detector
from mmaqd.export.graph import saturates_int16
from mmaqd.export.onnx.packed import pack
from mmaqd.export.spread import choose_spread
from mmaqd.export.storage import Format
from tests.export.test_lower import Chain, detector, lowered
from tests.helpers.networks import calibrated, image, normalized

GRIDS = {2: [-3, -1, 1, 3], 4: list(range(-15, 16, 2)), 8: list(range(-127, 128))}


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(sorted(GRIDS)), st.sampled_from([3, 15, 255]), st.integers(1, 600),
    st.floats(-4, 0), st.floats(-300, 300), st.sampled_from([None, (0, 3), (0, 15), (-128, 127)]))
def test_weights_stay_in_their_room(bits: int, inputs: int, fan_in: int, log_factor: float,
                                    offset: float, codes: tuple | None) -> None:
    weights = np.random.default_rng(fan_in).choice(GRIDS[bits], (4, fan_in, 1, 1))
    weights.flat[:2] = GRIDS[bits][0], GRIDS[bits][-1]
    magnitude = np.abs(weights).sum((1, 2, 3)) * inputs
    form = codes and Format(*codes, 1.0)
    spread = choose_spread(weights, inputs, magnitude, np.full(4, 10**log_factor),
                           np.full(4, offset), form)
    assert spread == 1 or pack(weights * spread) is not None or bits == 8
    assert np.abs(weights * spread).max() <= 127
    assert spread == 1 or 2 * inputs * np.abs(weights).max() * spread <= 2**15 - 1
    assert spread == 1 or magnitude.max() * spread < 2**23


@pytest.mark.parametrize('bits', [2, 4])
def test_biases_lose_less(bits: int) -> None:
    """Against the same graph with its biases rounded to whole units of the weights' own codes."""
    torch.manual_seed(0)
    model = calibrated(Chain(bits), image(0))
    graph = lower_detector(model, [normalized(image(0))])
    conv = next(each for each in graph.convs() if each.name == 'a1.conv')
    found = pack(graph.weights[conv.weight])
    assert found.bits == bits and found.step >= 4  # 2, the step of LIQ's grid, times 2 or more
    lost = np.abs(conv.bias / (found.step // 2) - np.round(conv.bias / (found.step // 2)))
    assert lost.max() > 0.1  # they hold fractions of the old unit


def test_all_uses_of_a_layer_share_the_weights() -> None:
    graph = lowered(detector())
    tower = {conv.weight for conv in graph.convs() if conv.name.startswith('tower')}
    assert len(tower) == 1 and not any(
        saturates_int16(graph, conv) for conv in graph.convs() if conv.name.startswith('tower'))


def test_8_bit_weights_are_left() -> None:
    weights = np.array(GRIDS[8]).reshape(1, -1, 1, 1)
    one = np.ones(1)
    assert choose_spread(weights, 3, one, one / 300, one, Format(0, 255, 1.0)) == 1
    assert choose_spread(weights, 3, one, one, one, None) == 1
