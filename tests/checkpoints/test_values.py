"""Which values a model takes."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.checkpoints import CheckpointError, check_values
from mmaqd.quantizers import LSQActivationQuantizer, PACTActivationQuantizer


def linear(**changes) -> dict:
    return {**nn.Linear(2, 2).state_dict(), **changes}


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_that_changes_no_number(dtype):
    check_values(nn.Linear(2, 2), linear(weight=torch.ones(2, 2, dtype=dtype)))


@pytest.mark.parametrize('value', [
    torch.full((2, 2), 0.1, dtype=torch.float64), torch.ones(2, 2, dtype=torch.bool),
    torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.complex64), None, 'text',
    torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
], ids=str)  # yapf: disable
def test_a_value_that_would_become_another(value):
    if value is None:
        return check_values(nn.Linear(2, 2), linear(weight=None))
    with pytest.raises(CheckpointError, match='weight '):
        check_values(nn.Linear(2, 2), linear(weight=value))


def test_a_sum_that_overflows_is_finite():
    check_values(nn.Linear(2, 2), linear(weight=torch.full((2, 2), 3e38)))


def test_an_infinite_buffer_of_the_model_stays_one():
    model = nn.Module()
    model.register_buffer('mask', torch.tensor([0., float('-inf')]))
    check_values(model, model.state_dict())


@pytest.mark.parametrize('quantizer, key', [(LSQActivationQuantizer(4), 'step_size'),
                                            (PACTActivationQuantizer(4), 'alpha')])
def test_the_first_value_that_a_quantizer_learns_is_positive(quantizer, key):
    state = dict(quantizer.state_dict())
    check_values(quantizer, state)
    state[key] = torch.tensor(-1.)
    with pytest.raises(CheckpointError, match=f'{key} is -1'):
        check_values(quantizer, state)


def test_what_the_optimizer_stepped_below_zero_is_saved_as_the_next_step_has_it():
    quantizer = PACTActivationQuantizer(4)
    quantizer.alpha.data.fill_(-0.1)
    state = quantizer.state_dict()
    check_values(quantizer, state)
    assert 0 < state['alpha'] < 1e-3
