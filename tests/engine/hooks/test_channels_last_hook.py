"""Training with the channels last: the layout of weights and features, and that the numbers stay."""
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


def test_a_low_bit_training_gives_the_same_numbers(tmp_path) -> None:
    data = make_coco(tmp_path / 'data', num_images=4)
    train(run_cfg(data, tmp_path / 'float'))
    for name, hooks in (('without', []), ('with', [HOOK])):
        cfg = run_cfg(data, tmp_path / name, bits=4)
        cfg.load_from = str(tmp_path / 'float/epoch_1.pth')
        cfg.custom_hooks = cfg.custom_hooks + hooks
        runner = train(cfg)
    conv = runner.model.get_submodule('bbox_head.cls_convs.0.conv')
    assert conv.weight.is_contiguous(**CHANNELS_LAST)
    losses = [[record['loss'] for record in scalars(tmp_path / name) if 'loss' in record]
              for name in ('without', 'with')]
    assert losses[0] and losses[1] == pytest.approx(losses[0], rel=1e-5)
    states = [checkpoint(tmp_path / name, 1)['state_dict'] for name in ('without', 'with')]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hooks', [([], [HOOK]), ([HOOK], [])], ids=['with', 'without'])
def test_what_was_trained_without_it_can_be_resumed_with_it_and_the_other_way(tmp_path,
                                                                              hooks) -> None:
    data = make_coco(tmp_path / 'data', num_images=4)
    for name, second in (('changed', hooks[1]), ('same', hooks[0])):
        for epochs, added in ((1, hooks[0]), (2, second)):
            cfg = run_cfg(data, tmp_path / name, epochs=epochs)
            cfg.custom_hooks = cfg.custom_hooks + added
            cfg.resume = epochs == 2
            assert train(cfg).epoch == epochs
    changed, same = (checkpoint(tmp_path / name, 2)['state_dict'] for name in ('changed', 'same'))
    for key, value in same.items():
        torch.testing.assert_close(changed[key], value, rtol=1e-4, atol=1e-5)
