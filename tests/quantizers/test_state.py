"""The interval, from a quantizer's state alone."""
from __future__ import annotations

import pytest
import torch

from mmaqd.quantizers import (DoReFaActivationQuantizer, LIQWeightQuantizer, LSQActivationQuantizer,
                              LSQPlusActivationQuantizer, LSQPlusWeightQuantizer,
                              LSQWeightQuantizer, PACTActivationQuantizer, WeightQuantizer,
                              state_interval)


@pytest.mark.parametrize('offset', [-3.0, -0.4, 1.0])
@pytest.mark.parametrize(
    'quantizer', [
        LIQWeightQuantizer(3, axis=0, num_channels=2),
        LSQWeightQuantizer(3, axis=0, num_channels=2),
        LSQPlusWeightQuantizer(8),
        LSQActivationQuantizer(8),
        LSQPlusActivationQuantizer(2),
        PACTActivationQuantizer(4),
    ],
    ids=lambda quantizer: type(quantizer).__name__)
def test_it_is_that_of_the_quantizer(quantizer, offset: float) -> None:
    with torch.no_grad():
        for name, parameter in quantizer.named_parameters():
            parameter.copy_(torch.full_like(parameter, offset if name == 'offset' else 0.3))
    found = state_interval(quantizer.state_dict(), isinstance(quantizer, WeightQuantizer))
    torch.testing.assert_close(found, quantizer.interval.detach())


def test_none_where_nothing_is_learned() -> None:
    assert state_interval(DoReFaActivationQuantizer(4).state_dict(), False) is None
