"""Multi-level batch normalization against one BatchNorm2d a level."""
from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from torch import Tensor, nn

from mmaqd.layers import MultiLevelBN, MultiLevelSyncBN
from mmaqd.registry import MODELS

both = pytest.mark.parametrize('norm_class', [MultiLevelBN, MultiLevelSyncBN])
loaders = pytest.mark.parametrize(
    'load', [
        lambda model, state: model.load_state_dict(state),
        lambda model, state: mmengine_load_state_dict(model, state, strict=True),
    ],
    ids=['torch', 'mmengine'])


def run(norm: MultiLevelBN, x: Tensor, level: int) -> Tensor:
    norm.level = level
    return norm(x)


def trained_bn(channels: int = 3) -> nn.BatchNorm2d:
    """A BN with affine parameters and statistics that are not the initial ones."""
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm(3 + 2 * torch.randn(4, channels, 5, 5))
    return norm


def head(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 1), norm), nn.ReLU())


@both
@pytest.mark.parametrize(
    'options',
    [{}, dict(eps=1e-2, momentum=0.5), dict(affine=False)],
    ids=['defaults', 'eps_momentum', 'not_affine'])
def test_one_level_is_batch_norm(norm_class, options: dict) -> None:
    norm, expected = norm_class(3, 1, **options), nn.BatchNorm2d(3, **options)
    for _ in range(3):
        x = torch.randn(2, 3, 4, 4).requires_grad_()
        grads = []
        for out in (run(norm, x, 0), expected(x)):
            grads.append((out, *torch.autograd.grad(out.pow(3).sum(), x)))
        assert torch.equal(grads[0][0], grads[1][0])
        assert torch.equal(grads[0][1], grads[1][1])
    for one, other in zip(norm[0].state_dict().values(), expected.state_dict().values()):
        assert torch.equal(one, other)
    norm.eval(), expected.eval()
    assert torch.equal(run(norm, x, 0), expected(x))


@both
def test_levels_do_not_see_each_other(norm_class) -> None:
    norm = norm_class(3, 3)
    kept = copy.deepcopy(norm.state_dict())
    run(norm, 5 + torch.randn(2, 3, 4, 4), 1).pow(3).sum().backward()
    for name, value in norm.state_dict().items():
        learned = name.startswith('1.') and not name.endswith(('weight', 'bias'))
        assert torch.equal(value, kept[name]) != learned, name
    assert [level.weight.grad is not None for level in norm] == [False, True, False]


def test_every_level_is_its_own_batch_norm() -> None:
    norm = MultiLevelBN(3, 4)
    alone = [nn.BatchNorm2d(3) for _ in range(4)]
    for level in (2, 0, 3, 1, 0, 2):
        x = (level + 1) * torch.randn(2, 3, 5, 5) + level
        assert torch.equal(run(norm, x, level), alone[level](x))
    norm.eval()
    for level, single in enumerate(alone):
        assert torch.equal(run(norm, x, level), single.eval()(x))


@both
def test_without_a_level_it_names_the_heads(norm_class) -> None:
    with pytest.raises(
            RuntimeError, match=f'{norm_class.__name__} .*without a pyramid level.*'
            'AQDRetinaHead'):
        norm_class(3, 2)(torch.randn(1, 3, 4, 4))


@both
@pytest.mark.parametrize('num_levels', [0, -1, 2.0, '5', None], ids=repr)
def test_bad_num_levels(norm_class, num_levels) -> None:
    with pytest.raises(ValueError, match=f'{norm_class.__name__}: num_levels .* {num_levels!r}'):
        norm_class(3, num_levels)


def test_num_levels() -> None:
    assert MultiLevelBN(3, 5).num_levels == 5


@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmengine', 'mmaqd'])
@pytest.mark.parametrize('name', ['MultiLevelBN', 'MultiLevelSyncBN'])
def test_norm_cfg_of_a_conv_module(name: str, scope: str | None) -> None:
    overwritten = DefaultScope.overwrite_default_scope(scope) if scope else nullcontext()
    with overwritten:
        module = ConvModule(2, 3, 1, norm_cfg=dict(type=f'mmaqd.{name}', num_levels=5))
    assert type(module.norm) is dict(
        MultiLevelBN=MultiLevelBN, MultiLevelSyncBN=MultiLevelSyncBN)[name]
    assert module.norm_name == 'bn'
    assert (module.norm.num_levels, module.norm[0].num_features) == (5, 3)
    module.init_weights()
    module.norm.level = 2
    assert module(torch.randn(2, 2, 4, 4)).shape == (2, 3, 4, 4)


def test_norm_cfg_arguments_reach_every_level() -> None:
    cfg = dict(type='mmaqd.MultiLevelBN', num_levels=2, momentum=0.3, eps=1e-4, requires_grad=False)
    name, norm = build_norm_layer(cfg, 3, postfix=1)
    assert name == 'bn1'
    assert [(level.momentum, level.eps) for level in norm] == [(0.3, 1e-4)] * 2
    assert not any(parameter.requires_grad for parameter in norm.parameters())


def test_registry() -> None:
    norm = MODELS.build(dict(type='mmaqd.MultiLevelSyncBN', num_features=3, num_levels=2))
    assert isinstance(norm[1], nn.SyncBatchNorm)


@both
@loaders
def test_shared_checkpoint_goes_to_every_level(norm_class, load) -> None:
    shared, model = head(trained_bn()), head(norm_class(3, 4))
    load(model, shared.state_dict())
    for level in model[0][1]:
        for name, value in shared[0][1].state_dict().items():
            assert torch.equal(level.state_dict()[name], value), name
    assert torch.equal(model[0][0].weight, shared[0][0].weight)


def test_shared_checkpoint_file_through_mmengine(tmp_path) -> None:
    shared, model = head(trained_bn()), head(MultiLevelBN(3, 4))
    path = str(tmp_path / 'shared.pth')
    torch.save(dict(state_dict=shared.state_dict()), path)
    load_checkpoint(model, path, strict=True)
    x = torch.randn(2, 2, 4, 4)
    model.eval(), shared.eval()
    for level in range(4):
        model[0][1].level = level
        assert torch.equal(model(x), shared(x))


def test_levels_of_a_shared_checkpoint_do_not_share_memory() -> None:
    norm = MultiLevelBN(3, 2)
    norm.load_state_dict(trained_bn().state_dict())
    before = norm[1].running_mean.clone()
    run(norm, torch.randn(2, 3, 4, 4), 0)
    assert torch.equal(norm[1].running_mean, before)


def test_the_checkpoint_itself_is_not_changed() -> None:
    state = head(trained_bn()).state_dict()
    kept = dict(state)
    for _ in range(2):
        head(MultiLevelBN(3, 2)).load_state_dict(state)
    assert state.keys() == kept.keys()


@loaders
def test_shared_checkpoint_without_batch_counts(load) -> None:
    state = {
        name: value
        for name, value in head(trained_bn()).state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    model = head(MultiLevelBN(3, 2))
    load(model, state)
    assert torch.equal(model[0][1][1].running_mean, state['0.1.running_mean'])


@both
@loaders
def test_own_checkpoint_keeps_the_levels_apart(norm_class, load) -> None:
    norm, fresh = norm_class(3, 3), norm_class(3, 3)
    for level in range(3):
        run(norm, level + torch.randn(2, 3, 4, 4), level)
    load(fresh, norm.state_dict())
    for name, value in norm.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


@loaders
@pytest.mark.parametrize('saved', [2, 4])
def test_checkpoint_with_another_number_of_levels_is_an_error(load, saved: int) -> None:
    with pytest.raises(RuntimeError, match=r'key.* "?\d\.'):
        load(MultiLevelBN(3, 3), MultiLevelBN(3, saved).state_dict())


def test_sync_in_a_single_process_is_multi_level_bn() -> None:
    sync, plain = MultiLevelSyncBN(3, 2), MultiLevelBN(3, 2)
    for level in (0, 1, 0):
        x = torch.randn(2, 3, 4, 4)
        assert torch.equal(run(sync, x, level), run(plain, x, level))
    assert sync.state_dict().keys() == plain.state_dict().keys()
    for one, other in zip(sync.state_dict().values(), plain.state_dict().values()):
        assert torch.equal(one, other)


def test_sync_can_be_reverted_as_mmengine_does() -> None:
    model = head(MultiLevelSyncBN(3, 2))
    run(model[0][1], torch.randn(2, 3, 4, 4), 1)
    state = copy.deepcopy(model.state_dict())
    reverted = revert_sync_batchnorm(model)
    norm = reverted[0][1]
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in reverted.modules())
    assert reverted.state_dict().keys() == state.keys()
    norm.level = 1
    x = torch.randn(2, 2, 4, 4)
    expected = head(MultiLevelBN(3, 2))
    expected.load_state_dict(state)
    expected[0][1].level = 1
    assert torch.equal(reverted.eval()(x), expected.eval()(x))


def test_torch_converts_the_levels_to_sync() -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(head(MultiLevelBN(3, 2)))
    assert isinstance(converted[0][1], MultiLevelBN)
    assert all(isinstance(level, nn.SyncBatchNorm) for level in converted[0][1])
