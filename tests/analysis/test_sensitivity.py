"""Scores of a model with parts of it quantized."""
from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.analysis import (GroupScore, Sensitivity, detection_score, mean_loss, plot_sensitivity,
                            quantized_layers, reestimated_norms, sensitivity, sensitivity_table)
from mmaqd.quantizers import LIQWeightQuantizer
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.detector import (DETECTORS, build, build_calibrated, loss, make_batch, model_cfg,
                                    raw_outputs)
from tests.helpers.runs import make_runner

GROUPS = {
    'neck': ['neck.fpn_convs.0.conv', 'neck.fpn_convs.1.conv'],
    'first': ['backbone.conv1'],
    'cls': ['bbox_head.retina_cls']
}
# What each layer adds to the score of the test when it is quantized.
COST = {
    'neck.fpn_convs.0.conv': 1.0,
    'neck.fpn_convs.1.conv': 2.0,
    'backbone.conv1': 5.0,
    'bbox_head.retina_cls': -4.0
}


@pytest.fixture(scope='module')
def model():
    return build_calibrated(bits=4)


def cost_of(model):
    """The sum of the costs of the layers that are quantized, 100 for each other one."""
    quantized = {
        name
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'weight_quantizer', None), LIQWeightQuantizer)
    }
    return sum(COST.get(name, 100) for name in quantized)


def test_one_group_at_a_time(model, capsys):
    result = sensitivity(model, GROUPS, cost_of)
    assert result == Sensitivity(0, [
        GroupScore('first', 1, 5, 5),
        GroupScore('neck', 2, 3, 3),
        GroupScore('cls', 1, -4, -4),
    ], False)
    assert '3/3' in capsys.readouterr().out  # the progress bar


def test_all_but_one_group(model):
    everything = 100 * (len(quantized_layers(model)) - len(COST)) + sum(COST.values())
    result = sensitivity(model, GROUPS, cost_of, all_but_one=True)
    assert result.reference == everything
    assert [(each.group, each.change) for each in result.groups] == [('first', -5), ('neck', -3),
                                                                     ('cls', 4)]
    assert result.groups[1].score == everything - 3


@pytest.mark.parametrize('all_but_one, order', [(False, ['cls', 'neck', 'first']),
                                                (True, ['cls', 'neck', 'first'])])
def test_where_more_is_better_a_loss_of_score_comes_first(model, all_but_one, order):
    result = sensitivity(model, GROUPS, cost_of, higher_is_better=True, all_but_one=all_but_one)
    assert [each.group for each in result.groups] == order


@pytest.mark.parametrize('all_but_one', [False, True])
def test_groups_of_other_layers_are_refused(model, all_but_one):
    with pytest.raises(ValueError, match='neck.nothing: no quantized layers'):
        sensitivity(model, dict(a=['neck.nothing']), cost_of, all_but_one=all_but_one)


def test_the_model_is_quantized_as_before(model):
    before = raw_outputs(model.eval(), make_batch())
    sensitivity(model, GROUPS, cost_of)
    after = raw_outputs(model, make_batch())
    assert all(torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize('detector', DETECTORS)
def test_mean_loss_is_the_training_loss_with_fixed_statistics(detector):
    model = build_calibrated(detector).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    measured = mean_loss(model, [make_batch(), make_batch(boxes=False)])
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    with torch.no_grad():
        expected = [float(loss(model, make_batch(boxes))) for boxes in (True, False)]
    assert measured == pytest.approx(sum(expected) / 2)


def test_detection_score_is_what_the_runner_tests(tmp_path):
    cfg = run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work', bits=4)
    model = build_calibrated(bits=4)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    expected = make_runner(cfg, load_from=str(tmp_path / 'model.pth')).test()
    model.train()
    score = detection_score(cfg, 'test', 'coco/bbox_mAP_50')
    assert score(model) == score(model) == expected['coco/bbox_mAP_50']
    assert model.training


def test_unknown_metric(tmp_path):
    cfg = run_cfg(make_coco(tmp_path / 'data'), tmp_path / 'work')
    make_runner(cfg)  # sets the default scope
    with pytest.raises(KeyError, match="no 'AP'.*coco/bbox_mAP"):
        detection_score(cfg, metric='AP')(build(model_cfg()).eval())


def test_reestimated_norms_know_the_batches_and_are_restored():
    model = build(model_cfg('RetinaNet')).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [make_batch(), make_batch(num_images=3)]
    with reestimated_norms(model, batches):
        with torch.no_grad():
            images = torch.cat([model.data_preprocessor(batch)['inputs'] for batch in batches])
            maps = model.backbone.conv1(images)
        norm = model.backbone.bn1
        torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)))
        torch.testing.assert_close(norm.running_var, maps.var(dim=(0, 2, 3), correction=0))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


RESULT = Sensitivity(0.5, [GroupScore('neck', 2, 0.75, 0.25),
                           GroupScore('cls', 1, 0.5, 0.0)], False)


def test_table():
    assert sensitivity_table(RESULT) == [
        dict(quantized='none', layers=None, score=0.5, change=0.0),
        dict(quantized='neck', layers=2, score=0.75, change=0.25),
        dict(quantized='cls', layers=1, score=0.5, change=0.0),
    ]
    reverse = sensitivity_table(Sensitivity(0.5, RESULT.groups, True))
    assert [row['quantized'] for row in reverse] == ['all', 'all but neck', 'all but cls']


def test_picture():
    panel, = plot_sensitivity(RESULT, 'AP').axes
    assert [bar.get_width() for bar in panel.patches] == [0.25, 0.0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ['neck (2)', 'cls (1)']
    assert panel.yaxis_inverted()
    assert panel.get_xlabel() == 'AP minus that with nothing quantized (0.5)'
