"""A detector with every family of quantizers, and what an earlier version computed with it.

``python -m tests.helpers.golden`` writes the files anew. Do so only with a change of numbers that
the changelog speaks of.
"""
from __future__ import annotations

import gzip
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from mmaqd.quantizers import calibrate
from tests.helpers.detector import LEVELS, build, head_cfg, loss, make_batch, model_cfg, raw_outputs

FOLDER = Path(__file__).resolve().parents[1] / 'data' / 'golden'
CHECKPOINT, RESULTS = FOLDER / 'retinanet_families.pth.gz', FOLDER / 'results.pt'
BATCH = dict(num_images=2, size=32)


def golden_cfg() -> dict:
    """A RetinaNet of 2 to 16 channels, each part with quantizers of another kind."""
    cfg = model_cfg('RetinaNet', 4)
    cfg['backbone'].update(base_channels=2)
    cfg['neck'].update(in_channels=[2, 4, 8, 16], out_channels=4)
    cfg['bbox_head'] = head_cfg('RetinaNet', in_channels=4, feat_channels=4)
    levels = dict(type='mmaqd.LIQActivationQuantizer', bit_width=3)
    cfg['quantization']['rules'] += [
        _rule('backbone.layer1.*', 'LSQ', 'LSQ', 2, dict(axis=0)),
        _rule('backbone.layer2.0.*', 'LSQPlus', 'LSQPlus', 3),
        _rule('backbone.layer3.*', 'DoReFa', 'PACT', 3),
        _rule('backbone.layer4.0.*', 'DoReFa', 'DoReFa', 4),
        _rule('neck.lateral_convs.*', 'LIQ', 'LIQ', 4, dict(normalize=False, axis=0)),
        _rule('neck.fpn_convs.*', 'LIQ', 'LIQ', 2, dict(center=False)),
        dict(
            pattern='bbox_head.reg_convs.*',
            input_quantizer=dict(
                type='mmaqd.MultiLevelQuantizer', num_levels=LEVELS, quantizer=levels)),
    ]
    return cfg


def _rule(pattern: str, weight: str, inputs: str, bits: int, options: dict | None = None) -> dict:
    return dict(
        pattern=pattern,
        weight_quantizer=dict(
            type=f'mmaqd.{weight}WeightQuantizer', bit_width=bits, **(options or {})),
        input_quantizer=dict(type=f'mmaqd.{inputs}ActivationQuantizer', bit_width=bits))


def golden_state() -> dict[str, Tensor]:
    """The checkpoint."""
    with gzip.open(CHECKPOINT) as file:
        return torch.load(file, weights_only=True)


def golden_results(model: nn.Module) -> dict[str, list[Tensor]]:
    """Outputs, and after two steps of training the losses and the outputs again."""
    batch = make_batch(**BATCH)
    results = dict(outputs=raw_outputs(model.eval(), batch))
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(loss(model, batch))
        losses[-1].backward()
        optimizer.step()
    results['losses'] = [each.detach() for each in losses]
    results['outputs_after_training'] = raw_outputs(model.eval(), batch)
    return results


def machine() -> list[str]:
    """What else the last bits of a convolution depend on."""
    return [str(torch.__version__), torch.backends.cpu.get_cpu_capability(), platform.machine()]


def main() -> None:
    model = build(golden_cfg())
    calibrate(model, [make_batch(**BATCH)])
    # As small as it gets: two bytes a weight, and what a checkpoint must have.
    model.half().float()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(CHECKPOINT, 'wb', mtime=0) as file:
        torch.save(model.state_dict(), file)
    model.load_state_dict(golden_state())
    torch.save(dict(machine=machine(), **golden_results(model)), RESULTS)


if __name__ == '__main__':
    main()
