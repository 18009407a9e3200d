"""Training with the channels last: the layout of weights and features, and the same numbers."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmaqd.engine import ChannelsLastHook
from tests.helpers.data import make_coco, run_cfg
from tests.helpers.runs import checkpoint, scalars, train

CHANNELS_LAST = dict(memory_format=torch.channels_last)
HOOK = dict(type='mmaqd.ChannelsLastHook')


@pytest.mark.parametrize('wrap', [nn.Sequential, nn.DataParallel])
def test_weights_and_outputs_have_the_channels_last(wrap) -> None:
    conv = nn.Conv2d(3, 4, 3)
    x, values = torch.randn(2, 3, 8, 8), conv.weight.detach().clone()
    expected = conv(x)
    ChannelsLastHook().before_train(SimpleNamespace(model=wrap(conv)))
    assert conv.weight.is_contiguous(**CHANNELS_LAST) and torch.equal(conv.weight, values)
    assert conv(x).is_contiguous(**CHANNELS_LAST)
    torch.testing.assert_close(conv(x), expected)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp('data'), num_images=4)


def losses_of(work_dir) -> list[float]:
    return [record['loss'] for record in scalars(work_dir) if 'loss' in record]


def test_a_training_gives_the_same_numbers(data, tmp_path) -> None:
    for name, hooks in (('without', []), ('with', [HOOK])):
        cfg = run_cfg(data, tmp_path / name)
        cfg.custom_hooks = cfg.custom_hooks + hooks
        train(cfg)
    without, changed = losses_of(tmp_path / 'without'), losses_of(tmp_path / 'with')
    assert without and changed == pytest.approx(without, rel=1e-5)
    states = [checkpoint(tmp_path / name, 1)['state_dict'] for name in ('without', 'with')]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_low_bit_training_gives_the_same_losses(data, tmp_path) -> None:
    train(run_cfg(data, tmp_path / 'float'))
    for name, hooks in (('without', []), ('with', [HOOK])):
        cfg = run_cfg(data, tmp_path / name, bits=4)
        cfg.load_from = str(tmp_path / 'float/epoch_1.pth')
        cfg.custom_hooks = cfg.custom_hooks + hooks
        runner = train(cfg)
    weight = runner.model.get_submodule('bbox_head.cls_convs.0.conv').weight
    assert weight.is_contiguous(**CHANNELS_LAST)
    # Not closer: the last bit of a sum decides to which level a value in the middle is rounded.
    without, changed = losses_of(tmp_path / 'without'), losses_of(tmp_path / 'with')
    assert without and changed == pytest.approx(without, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize('hooks', [([], [HOOK]), ([HOOK], [])], ids=['with', 'without'])
def test_a_training_can_be_resumed_with_it_or_without(data, tmp_path, hooks) -> None:
    for name, second in (('changed', hooks[1]), ('same', hooks[0])):
        for epochs, added in ((1, hooks[0]), (2, second)):
            cfg = run_cfg(data, tmp_path / name, epochs=epochs)
            cfg.custom_hooks = cfg.custom_hooks + added
            cfg.resume = epochs == 2
            assert train(cfg).epoch == epochs
    changed, same = (checkpoint(tmp_path / name, 2)['state_dict'] for name in ('changed', 'same'))
    for key, value in same.items():
        torch.testing.assert_close(changed[key], value, rtol=1e-4, atol=1e-5)
