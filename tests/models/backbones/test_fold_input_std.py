"""An ImageNet checkpoint in a backbone whose images are not divided by a std."""
from __future__ import annotations

import pytest
import torch
from mmdet.models import ResNet
from mmengine.registry import build_from_cfg
from torch import nn

from mmaqd.conversion import prepare
from mmaqd.layers import QuantConv2d
from mmaqd.models import FoldInputStd
from mmaqd.registry import MODELS, WEIGHT_INITIALIZERS

STD = (58.395, 57.12, 61.0)


def make_backbone(**changes) -> nn.Module:
    cfg = dict(
        type='ResNet',
        depth=18,
        base_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        norm_eval=False)
    return MODELS.build({**cfg, **changes})


def pretrained(training: bool = False) -> nn.Module:
    """A backbone with weights and statistics that no initialization gives."""
    torch.manual_seed(1)
    backbone = make_backbone()
    with torch.no_grad():
        for name, value in backbone.state_dict().items():
            if name.endswith(('running_mean', 'bias')):
                value.normal_()
            elif name.endswith('running_var') or 'bn' in name and name.endswith('weight'):
                value.uniform_(0.5, 2)
    backbone.train(training)  # returns nothing in mmdet's ResNet
    return backbone


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-128, 128, (2, 3, 32, 32), generator=generator).float()


def divided(x: torch.Tensor) -> torch.Tensor:
    return x / torch.tensor(STD).view(1, 3, 1, 1)


def save(tmp_path, state: dict, prefix: str = '') -> str:
    path = str(tmp_path / 'pretrained.pth')
    torch.save(dict(state_dict={prefix + key: value for key, value in state.items()}), path)
    return path


def initialized(path: str, prefix: str | None = None) -> nn.Module:
    backbone = make_backbone(
        init_cfg=dict(type='mmaqd.FoldInputStd', checkpoint=path, std=list(STD), prefix=prefix))
    backbone.init_weights()
    backbone.eval()
    return backbone


def test_folded_backbone_sees_raw_images_as_the_original_sees_divided_ones():
    original, folded = pretrained(), pretrained()
    FoldInputStd('', STD).fold(folded)
    torch.testing.assert_close(folded(images()), original(divided(images())), rtol=1e-4, atol=1e-4)


def test_folded_backbone_trains_as_the_original():
    original, folded = pretrained(training=True), pretrained(training=True)
    FoldInputStd('', STD).fold(folded)
    # eps of BN weighs less against the larger variance: the tolerance is that of this effect.
    torch.testing.assert_close(folded(images()), original(divided(images())), rtol=1e-3, atol=1e-3)


def test_a_std_that_is_the_same_for_all_channels_leaves_the_weights_alone():
    original, folded = pretrained(), pretrained()
    FoldInputStd('', (50.0, 50.0, 50.0)).fold(folded)
    assert torch.equal(folded.conv1.weight, original.conv1.weight)
    torch.testing.assert_close(folded.bn1.running_var, original.bn1.running_var * 2500)
    torch.testing.assert_close(folded.bn1.running_mean, original.bn1.running_mean * 50)


def test_the_size_of_the_weights_is_kept():
    original, folded = pretrained(), pretrained()
    FoldInputStd('', STD).fold(folded)
    ratio = folded.conv1.weight.norm() / original.conv1.weight.norm()
    assert 0.95 < ratio.item() < 1.05


def test_only_the_stem_changes():
    original, folded = pretrained(), pretrained()
    FoldInputStd('', STD).fold(folded)
    changed = [
        key for key, value in folded.state_dict().items()
        if not torch.equal(value,
                           original.state_dict()[key])
    ]
    assert changed == ['conv1.weight', 'bn1.running_mean', 'bn1.running_var']


def test_without_a_norm_the_std_goes_into_the_weights_whole():
    model = nn.Sequential()
    model.stem = nn.Conv2d(3, 4, 3)
    expected = model.stem(divided(images()))
    FoldInputStd('', STD, conv='stem', norm=None).fold(model)
    torch.testing.assert_close(model.stem(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('std', [(58.0, ), (1.0, 2.0, 3.0, 4.0), ()])
def test_std_of_another_length_is_an_error(std):
    with pytest.raises(ValueError, match='one value for each of the 3 input channels of conv1'):
        FoldInputStd('', std).fold(pretrained())


@pytest.mark.parametrize('prefix', [None, 'backbone.'], ids=['whole-file', 'prefix'])
def test_init_cfg_loads_the_checkpoint_and_folds(prefix, tmp_path):
    original = pretrained()
    path = save(tmp_path, original.state_dict(), prefix or '')
    backbone = initialized(path, prefix)
    torch.testing.assert_close(
        backbone(images()), original(divided(images())), rtol=1e-4, atol=1e-4)


def test_a_second_init_weights_does_not_fold_again(tmp_path):
    backbone = initialized(save(tmp_path, pretrained().state_dict()))
    before = backbone.conv1.weight.clone()
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight, before)


def test_a_backbone_that_is_quantized_already_is_initialized_too(tmp_path):
    original = pretrained()
    backbone = make_backbone(
        init_cfg=dict(
            type='mmaqd.FoldInputStd', checkpoint=save(tmp_path, original.state_dict()), std=STD))
    prepare(backbone, dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, start='constant'))
    backbone.init_weights()
    assert isinstance(backbone.conv1, QuantConv2d)
    expected = pretrained()
    FoldInputStd('', STD).fold(expected)
    assert all(
        torch.equal(backbone.state_dict()[key], value)
        for key, value in expected.state_dict().items())


def test_a_missing_checkpoint_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        initialized(str(tmp_path / 'nowhere.pth'))


def test_it_is_a_registered_initializer():
    built = build_from_cfg(
        dict(type='mmaqd.FoldInputStd', checkpoint='x.pth', std=STD), WEIGHT_INITIALIZERS)
    assert isinstance(built, FoldInputStd) and built.std == STD
    assert type(make_backbone()) is ResNet
