"""FPN in a stream: upstream's where the stream changes nothing, integers where it does."""
from __future__ import annotations

import pytest
import torch
from mmdet.models.necks import FPN
from torch import nn

from mmaqd.models.necks import StreamFPN
from mmaqd.quantizers import StreamQuantizer, calibrating

RELU = dict(type='ReLU')


class Through(nn.Module):
    """Stands for a stream that changes nothing."""

    def forward(self, x: torch.Tensor, nonnegative: bool = False) -> torch.Tensor:
        return x


def make_fpn(**options: object) -> FPN:
    torch.manual_seed(0)
    return FPN([4, 8, 12], 6, **{'num_outs': 5, **options}).eval()


def features(height: int = 20) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, c, height // s, 16 // s) for c, s in ((4, 1), (8, 2), (12, 4)))


@pytest.mark.parametrize(
    'options', [
        dict(add_extra_convs='on_input'),
        dict(add_extra_convs='on_lateral'),
        dict(add_extra_convs='on_output', start_level=1, num_outs=4),
        dict(add_extra_convs='on_output', relu_before_extra_convs=True, act_cfg=RELU),
        dict(),
        dict(num_outs=3),
        dict(start_level=1, end_level=1, num_outs=1),
        dict(norm_cfg=dict(type='BN'), act_cfg=RELU, upsample_cfg=dict(mode='nearest')),
        dict(upsample_cfg=dict(scale_factor=2, mode='nearest')),
    ],
    ids=str)
def test_it_is_upstreams_but_for_the_stream(options: dict) -> None:
    fpn, maps = make_fpn(**options), features()
    made = StreamFPN.from_fpn(fpn, Through(), Through())
    assert dict(made.named_parameters()) == dict(fpn.named_parameters())
    for ours, upstream in zip(made(maps), fpn(maps), strict=True):
        torch.testing.assert_close(ours, upstream, atol=0, rtol=0)


@pytest.mark.parametrize('act_cfg', [None, RELU])
def test_what_fpn_convs_read_is_in_the_stream(act_cfg: dict | None) -> None:
    stream, maps, read = StreamQuantizer(8), features(), []
    made = StreamFPN.from_fpn(make_fpn(act_cfg=act_cfg), stream, Through())
    with calibrating(made):
        made(maps)
    for conv in list(made.fpn_convs)[:3]:
        conv.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    made(maps)
    codes = torch.cat([each.flatten() for each in read]).detach() / stream.step_size.detach()
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
    assert codes.min() >= (0 if act_cfg else -128) and codes.max() <= (255 if act_cfg else 127)
    assert len(codes.round().unique()) > 100


def test_all_outputs_are_in_the_other_stream() -> None:
    out_stream = StreamQuantizer(8)
    made = StreamFPN.from_fpn(make_fpn(add_extra_convs='on_output'), Through(), out_stream)
    with calibrating(made):
        made(features())
    outs = made(features())
    codes = torch.cat([each.flatten() for each in outs]).detach() / out_stream.step_size.detach()
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
    assert len(outs) == 5 and len(codes.round().unique()) > 100
