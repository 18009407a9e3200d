"""Streams of a detector: where they are, what they do, what is refused."""
from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from mmdet.models.backbones import ResNeXt
from torch import nn

from mmaqd.conversion import add_streams, quantization_table
from mmaqd.quantizers import StreamQuantizer, calibrate
from tests.helpers.detector import build, loss, make_batch, model_cfg, raw_outputs

NAMES = [*(f'backbone.layer{i}.0.stream' for i in range(1, 5)), 'neck.stream', 'neck.out_stream']


def streamed_cfg(depth: int = 18, detector: str = 'RetinaNet', stream: object = 8) -> dict:
    cfg = model_cfg(detector, 4)
    cfg['backbone']['depth'] = depth
    if depth == 50:
        cfg['neck']['in_channels'] = [32, 64, 128, 256]
    cfg['quantization']['stream'] = dict(bit_width=stream) if isinstance(stream, int) else stream
    return cfg


def ready(**options: object) -> nn.Module:
    model = build(streamed_cfg(**options))
    calibrate(model, [make_batch()])
    return model.eval()


def streams_of(model: nn.Module) -> dict[str, StreamQuantizer]:
    return {n: each for n, each in model.named_modules() if isinstance(each, StreamQuantizer)}


@pytest.mark.parametrize('depth', [18, 50])
def test_each_stage_and_the_top_down_path_have_one(depth: int) -> None:
    model = ready(depth=depth)
    streams = streams_of(model)
    assert list(streams) == NAMES == [each.name for each in streams.values()]
    assert all(bool(each.initialized) and each.bit_width == 8 for each in streams.values())
    plain = build({
        **streamed_cfg(depth), 'quantization': model_cfg('RetinaNet', 4)['quantization']
    })
    assert quantization_table(model) == quantization_table(plain)


@pytest.mark.parametrize('depth', [18, 50])
def test_operands_and_sums_are_codes_of_one_unit(depth: int) -> None:
    model, seen = ready(depth=depth), {}
    for name, module in model.backbone.named_modules():
        if name.endswith(('downsample', 'bn3' if depth == 50 else 'bn2')) or name == 'maxpool':
            module.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    for stage in (1, 2, 3, 4):
        for index, block in enumerate(getattr(model.backbone, f'layer{stage}')):
            block.register_forward_hook(
                lambda m, a, out, name=f'layer{stage}.{index}': seen.update({name: out}))
    raw_outputs(model, make_batch())
    if depth == 50:  # its first stage has a downsample, so that nothing is added to the stem
        del seen['maxpool']
    assert len(seen) == (8 + 3 + 8 + 1 if depth == 18 else 16 + 4 + 16)
    for name, value in seen.items():
        stage = 'layer1' if name == 'maxpool' else name.split('.')[0]
        unit = model.get_submodule(f'backbone.{stage}.0.stream').step_size.detach()
        codes = value.detach() / unit
        torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0, msg=name)


@pytest.mark.parametrize('detector, on_boxes', [('FCOS', True), ('FCOS', False), ('ATSS', True)])
def test_so_is_what_two_prediction_convs_read(detector: str, on_boxes: bool) -> None:
    cfg = streamed_cfg(detector=detector)
    if detector == 'FCOS':
        cfg['bbox_head']['centerness_on_reg'] = on_boxes
    model, read = build(cfg), []
    calibrate(model, [make_batch()])
    head = model.eval().bbox_head
    name = 'atss_centerness' if detector == 'ATSS' else 'conv_centerness'
    getattr(head, name).register_forward_pre_hook(lambda module, args: read.append(args[0]))
    raw_outputs(model, make_batch())
    codes = torch.cat([each.flatten() for each in read]) / head.stream.step_size.detach()
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
    assert head.stream.name == 'bbox_head.stream' and codes.round().unique().numel() > 20
    tower = (head.reg_convs if on_boxes else head.cls_convs)[-1]
    assert len(tower._forward_hooks) == 1


def test_they_are_trained_saved_and_loaded() -> None:
    model = ready()
    loss(model.train(), make_batch()).backward()
    assert all(each.step_size.grad.abs() > 0 for each in streams_of(model).values())
    torch.optim.SGD(model.parameters(), 1e-3).step()
    other = build(streamed_cfg())
    other.load_state_dict(deepcopy(model.state_dict()))
    for ours, theirs in zip(
            raw_outputs(other.eval(), make_batch()), raw_outputs(model.eval(), make_batch())):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    'copy', [deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=['deepcopy', 'pickle'])
def test_a_copy_has_streams_of_its_own(copy) -> None:
    model = ready()
    before = raw_outputs(model, make_batch())
    copied = copy(model)
    for stream in streams_of(copied).values():
        stream.step_size.data.mul_(64)
    assert all(map(torch.equal, raw_outputs(model, make_batch()), before))
    assert not all(map(torch.equal, raw_outputs(copied, make_batch()), before))


def test_frozen_stages_freeze_their_stream() -> None:
    cfg = streamed_cfg()
    cfg['backbone'].update(frozen_stages=2)
    model = build(cfg).train()
    learns = [each.step_size.requires_grad for each in streams_of(model).values()]
    assert learns == [False, False, True, True, True, True]


def test_a_checkpoint_without_them_is_taken_and_they_start_anew() -> None:
    plain = build(model_cfg('RetinaNet', 4))
    calibrate(plain, [make_batch()])
    model = build(streamed_cfg())
    model.load_state_dict(plain.state_dict())
    assert calibrate(model, [make_batch()]) == len(NAMES)


def test_where_nothing_could_be_one_is_an_error() -> None:
    with pytest.raises(ValueError, match='model.quantization.stream: .*no ResNet and no FPN'):
        add_streams(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_resnext_has_them_too() -> None:
    backbone = ResNeXt(depth=50, groups=4, base_width=4, base_channels=16)
    assert len(add_streams(nn.Sequential(backbone))) == 4


@pytest.mark.parametrize(('stream', 'message'), [
    (dict(bit_width=3), 'StreamQuantizer.*3'),
    (dict(bit_width=9), 'StreamQuantizer.*9'),
    (dict(bits=8), r'model.quantization.stream must be .*bit_width=8.*bits'),
    (dict(), r'model.quantization.stream must be'),
    (8, r'model.quantization.stream must be None or a dict.*8'),
    (True, r'model.quantization.stream must be None or a dict.*True'),
])
def test_a_wrong_block_is_refused(stream: object, message: str) -> None:
    cfg = streamed_cfg()
    cfg['quantization']['stream'] = stream
    with pytest.raises((ValueError, TypeError), match=message):
        build(cfg)
