"""What is seen of a small detector that runs."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaqd.conversion.automatic import random_batch
from mmaqd.conversion.automatic.probing import Layer, probe
from tests.helpers.detector import NUM_CLASSES, build, head_cfg, model_cfg


def seen(change=lambda cfg: None, size: int = 64, images: int = 2) -> dict[str, Layer]:
    cfg = model_cfg()
    change(cfg)
    batches = [random_batch(size, 3, NUM_CLASSES, seed=seed) for seed in range(images)]
    return probe(lambda: build(cfg, int(torch.randint(100, ()))), batches)


def names(result, attribute: str) -> set[str]:
    return {name for name, layer in result.layers.items() if getattr(layer, attribute)}


@pytest.mark.parametrize('images', [1, 2])
def test_our_structure_needs_no_exception(images):
    result = seen(images=images)
    assert names(result, 'sees_image') == {'backbone.conv1'}
    assert names(result, 'predicts') == {'bbox_head.retina_cls', 'bbox_head.retina_reg'}
    assert not names(result, 'can_be_negative') - {'backbone.conv1'}
    assert names(result, 'is_called') == names(result, 'has_quantizers') == set(result.layers)
    assert names(result, 'gets_integers') == {'backbone.conv1'}
    trained = names(result, 'has_trained_norm')
    assert trained == names(result, 'normalizes_unasked')
    assert set(result.layers) - trained == names(result, 'predicts')
    assert result.frozen_norms == 0 and not result.loss_failed


def test_a_divided_image_is_not_made_of_integers():
    result = seen(lambda cfg: cfg['data_preprocessor'].update(std=[58.395, 57.12, 57.375]))
    assert not names(result, 'gets_integers')


def test_frozen_norms_and_necks_without_any():

    def change(cfg):
        cfg['backbone']['norm_eval'] = True
        cfg['neck'].update(norm_cfg=None, act_cfg=None)

    result = seen(change)
    assert names(
        result, 'has_trained_norm') == {'bbox_head.cls_convs.0.conv', 'bbox_head.reg_convs.0.conv'}
    assert result.frozen_norms == 20
    negative = names(result, 'can_be_negative') - {'backbone.conv1'}
    assert {name.split('.')[0] for name in negative} == {'neck', 'bbox_head'}
    assert 'neck.fpn_convs.0.conv' in negative


def test_frozen_stages_are_seen_as_the_others():
    result = seen(lambda cfg: cfg['backbone'].update(frozen_stages=2))
    assert names(result, 'can_be_negative') == {'backbone.conv1'}
    assert len(names(result, 'has_trained_norm')) < len(result.layers) - 2


def test_work_is_that_of_one_image():
    one, two = seen(images=1), seen(images=2)
    assert one.macs == two.macs
    assert one.macs['backbone.conv1'] == 8 * 3 * 7 * 7 * 32 * 32


def test_a_loss_that_fails_is_said():
    result = seen(lambda cfg: cfg.update(train_cfg=dict(assigner=dict(type='PointAssigner'))))
    assert result.loss_failed
    assert names(result, 'predicts') == {'bbox_head.retina_cls', 'bbox_head.retina_reg'}


def test_a_layer_that_nothing_reaches():

    class Idle(nn.Module):

        def __init__(self):
            super().__init__()
            self.extra = nn.Conv2d(3, 3, 1)

    def make():
        model = build(model_cfg())
        model.idle = Idle()
        return model

    result = probe(make, [random_batch(64, 3, NUM_CLASSES)])
    assert set(result.layers) - names(result, 'is_called') == {'idle.extra'}


def test_a_refused_layer_is_seen_as_such():

    def make():
        model = build(model_cfg())
        model.backbone.layer1[0].conv1 = nn.Conv1d(1, 1, 1)
        return model

    with pytest.raises(RuntimeError):
        probe(make, [random_batch(64, 3, NUM_CLASSES)])


def test_a_head_shared_over_the_levels_is_seen_under_each_name():
    cfg = model_cfg()
    cfg['bbox_head'] = head_cfg('RetinaNet', norm_cfg=dict(type='BN'))

    def make():
        model = build(cfg)
        model.alias = model.bbox_head
        return model

    result = probe(make, [random_batch(64, 3, NUM_CLASSES)])
    assert result.layers['alias.retina_cls'] == result.layers['bbox_head.retina_cls']
    assert result.layers['alias.retina_cls'].predicts


def test_a_loss_in_training_mode_only_will_do(monkeypatch):
    head = type(build(model_cfg()).bbox_head)
    loss = head.loss

    def strict(self, *args):
        assert self.training
        return loss(self, *args)

    monkeypatch.setattr(head, 'loss', strict, raising=False)
    result = seen()
    assert not result.loss_failed and names(result, 'is_called') == set(result.layers)
