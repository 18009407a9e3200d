"""A net with two BN, data for it, and the statistics that its BN should have."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoNorms(nn.Module):
    """conv, BN, conv, BN, called as MMEngine calls a detector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3)
        self.conv2, self.bn2 = nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2, momentum=None)

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        return batch

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(inputs)).relu()))


def batches() -> list[dict]:
    """Batches of different sizes and statistics."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 3, 8, 8), (1, 3, 12, 9), (3, 3, 7, 7)]
    return [
        dict(inputs=3 * i + (1 + i) * torch.randn(shape, generator=generator))
        for i, shape in enumerate(shapes)
    ]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if 'running' in key}


def expected_statistics(model: TwoNorms, given: list[dict]) -> dict[str, Tensor]:
    """Mean and variance over everything that reaches each BN, all values put in one row."""
    seen: dict[str, list[Tensor]] = dict(bn1=[], bn2=[])
    for batch in given:
        first = model.conv1(batch['inputs'])
        normed = F.batch_norm(first, None, None, model.bn1.weight, model.bn1.bias, training=True)
        for name, x in (('bn1', first), ('bn2', model.conv2(normed.relu()))):
            seen[name].append(x.detach().double().transpose(0, 1).flatten(1))
    rows = {name: torch.cat(each, dim=1) for name, each in seen.items()}
    means = {f'{name}.running_mean': row.mean(1).float() for name, row in rows.items()}
    return {
        **means,
        **{
            f'{name}.running_var': row.var(1, unbiased=False).float()
            for name, row in rows.items()
        }
    }
