"""Statistics of the levels against those taken from the conv outputs by hand."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from matplotlib.image import imread

from mmaqd.analysis import (LevelStatistics, level_statistics, level_table, plot_level_statistics,
                            with_shared_norm)
from tests.helpers.detector import (CHANNELS, DETECTORS, LEVELS, build, build_calibrated,
                                    make_batch, model_cfg)

SHARED_BN = dict(type='BN')
# 128 pixels, so that the coarsest level has more than one value a channel.
BATCHES = [make_batch(size=128), make_batch(size=96)]


def randomize_norms(model):
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


def two_convs(norm_cfg=None, **head):
    changes = dict(norm_cfg=norm_cfg) if norm_cfg else {}
    return randomize_norms(build(model_cfg('RetinaNet', stacked_convs=2, **changes, **head)))


@torch.no_grad()
def by_hand(model, tower):
    """Mean and variance of both layers of a tower, by layer and level."""
    values = [[[] for _ in range(LEVELS)] for _ in range(2)]
    for batch in BATCHES:
        feats = model.extract_feat(model.data_preprocessor(batch)['inputs'])
        for level, x in enumerate(feats):
            for layer, block in enumerate(getattr(model.bbox_head, tower)):
                x = block.conv(x)
                values[layer][level].append(x.transpose(0, 1).flatten(1))
                norm = block.norm[level] if hasattr(block.norm, 'num_levels') else block.norm
                x = norm(x).relu()
    joined = [[torch.cat(parts, dim=1).double() for parts in layer] for layer in values]
    return [[(each.mean(dim=1), each.var(dim=1, correction=0)) for each in layer]
            for layer in joined]


def statistics_of(mean, variance, running_mean, running_variance, **changes):
    tensors = [
        torch.tensor(values, dtype=torch.float64)
        for values in (mean, variance, running_mean, running_variance)
    ]
    return replace(LevelStatistics('bn', 0, 'BatchNorm2d', *tensors, eps=0.0), **changes)


@pytest.mark.parametrize('norm_cfg', [None, SHARED_BN], ids=['multi-level', 'shared'])
@pytest.mark.parametrize('tower', ['cls_convs', 'reg_convs'])
def test_data_statistics_against_the_conv_outputs(norm_cfg, tower):
    model = two_convs(norm_cfg)
    measured = level_statistics(model, BATCHES)
    for layer, levels in enumerate(by_hand(model, tower)):
        rows = [row for row in measured if row.layer == f'bbox_head.{tower}.{layer}.bn']
        assert [row.level for row in rows] == list(range(LEVELS))
        for row, (mean, variance) in zip(rows, levels):
            torch.testing.assert_close(row.mean, mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(row.variance, variance, rtol=1e-4, atol=1e-6)


def test_running_statistics_are_those_of_the_level():
    model = two_convs()
    for row in level_statistics(model, BATCHES[:1]):
        norm = model.get_submodule(row.layer)[row.level]
        assert row.norm == 'MultiLevelBN'
        assert torch.equal(row.running_mean, norm.running_mean.double())
        assert torch.equal(row.running_variance, norm.running_var.double())


def test_running_statistics_of_a_shared_norm():
    model = two_convs(SHARED_BN)
    rows = level_statistics(model, BATCHES[:1])
    norm = model.bbox_head.cls_convs[0].bn
    assert {row.norm for row in rows} == {'BatchNorm2d'}
    assert all(torch.equal(row.running_mean, norm.running_mean.double()) for row in rows[:LEVELS])


def test_differences_of_a_level():
    row = statistics_of([1., 4.], [2., 1.], [3., 4.], [4., 1.])
    assert row.mean_shift == pytest.approx((2 / 2 + 0) / 2)
    assert row.log_variance_ratio == pytest.approx(torch.tensor(2.).log().item() / 2)


def test_differences_vanish_for_equal_statistics_and_dead_channels_count_nothing():
    row = statistics_of([1., 0.], [2., 0.], [1., 0.], [2., 0.], eps=1e-5)
    assert row.mean_shift == row.log_variance_ratio == 0


def test_one_norm_for_all_levels_is_the_average():
    rows = [
        statistics_of([0.], [1.], [0.], [1.]),
        statistics_of([4.], [3.], [4.], [3.], level=1),
        statistics_of([9.], [9.], [9.], [9.], layer='other')
    ]
    shared = with_shared_norm(rows)
    assert [float(row.running_mean) for row in shared] == [2, 2, 9]
    assert [float(row.running_variance) for row in shared] == [2, 2, 9]
    assert [float(row.mean) for row in shared] == [0, 4, 9]


def test_a_shared_norm_is_its_own_average():
    rows = level_statistics(two_convs(SHARED_BN), BATCHES[:1])
    for row, shared in zip(rows, with_shared_norm(rows)):
        torch.testing.assert_close(row.running_mean, shared.running_mean)


def test_multi_level_norms_that_know_their_level_fit_where_one_norm_does_not():
    model = build(model_cfg('RetinaNet')).eval()
    model.bbox_head.cls_convs[0].conv.weight.data.mul_(30)
    for row in level_statistics(model, BATCHES):
        norm = model.get_submodule(row.layer)[row.level]
        norm.running_mean.copy_(row.mean)
        norm.running_var.copy_(row.variance)
    table = level_table(level_statistics(model, BATCHES))
    for row in table:
        assert row['mean shift'] < 1e-3 and row['log variance ratio'] < 1e-3
    assert all(row['shared: log variance ratio'] > 0.05 for row in table if row['level'] == 'all')


def test_table_ends_each_layer_with_the_mean_over_the_levels():
    rows = level_statistics(two_convs(), BATCHES[:1])
    table = level_table(rows)
    assert len(table) == 4 * (LEVELS + 1)
    first, last = table[:LEVELS], table[LEVELS]
    assert last['level'] == 'all' and last['layer'] == 'bbox_head.cls_convs.0.bn'
    expected = sum(row.mean_shift for row in rows[:LEVELS]) / LEVELS
    assert last['mean shift'] == pytest.approx(expected)
    assert first[2]['mean'] == pytest.approx(float(rows[2].mean.sum()) / CHANNELS)
    assert first[2]['running variance'] == pytest.approx(float(rows[2].running_variance.mean()))


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('bits', [None, 4])
def test_all_heads_float_and_quantized(detector, bits):
    model = build_calibrated(detector, bits) if bits else build(model_cfg(detector))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = level_statistics(model, [make_batch()])
    assert len(rows) == 2 * LEVELS
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_head_without_bn_is_refused():
    group_norm = build(model_cfg('FCOS', norm_cfg=dict(type='GN', num_groups=4)))
    with pytest.raises(ValueError, match='has no BN: it has only GroupNorm'):
        level_statistics(group_norm, BATCHES)
    nothing = build(model_cfg('RetinaNet', norm_cfg=None))
    with pytest.raises(ValueError, match='no norm at all'):
        level_statistics(nothing, BATCHES)


def test_no_batches():
    with pytest.raises(ValueError, match='no batches'):
        level_statistics(build(model_cfg()), [])


def test_a_norm_that_skips_a_level_is_refused():
    model = build(model_cfg('RetinaNet', norm_cfg=SHARED_BN))
    forward = model.bbox_head.forward
    model.bbox_head.forward = lambda feats: forward(feats[1:])
    with pytest.raises(ValueError, match=r'cls_convs.0.bn ran 4 times for 5 pyramid levels'):
        level_statistics(model, BATCHES)


def test_picture(tmp_path):
    rows = level_statistics(two_convs(), BATCHES[:1])
    figure = plot_level_statistics(rows[:2 * LEVELS])
    assert len(figure.axes) == 2 * 2
    left, right = figure.axes[:2]
    assert [text.get_text() for text in left.get_xticklabels()] == [f'level {i}' for i in range(5)]
    one = with_shared_norm(rows[:LEVELS])[3]
    scale = (one.running_variance + one.eps).sqrt()
    # Each box has, besides the median, two whiskers and two caps; level 3's is the fourth.
    data_median = left.lines[3 * 5 + 4].get_ydata()[0]
    shift = (rows[3].mean - one.running_mean) / scale
    assert data_median == pytest.approx(shift.quantile(0.5).item())
    assert right.get_yscale() == 'log'
    figure.savefig(tmp_path / 'levels.png')
    assert imread(tmp_path / 'levels.png').std() > 0
