_base_ = [
    __import__('mmaqd').upstream_config_path('_base_/models/retinanet_r50_fpn.py'),
    __import__('mmaqd').upstream_config_path('_base_/default_runtime.py'),
    '../_base_/mmaqd_runtime.py',
    '../_base_/bccd.py',
]

norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(mean=[124, 116, 104], std=[1, 1, 1]),
    backbone=dict(depth=18, frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False,
                  init_cfg=None),  # trained from scratch
    neck=dict(in_channels=[64, 128, 256, 512], norm_cfg=norm_cfg, act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.AQDRetinaHead',
        num_classes=3,
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5)))

# Two checkpoints are kept, so that one is whole whenever the run is killed.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type='mmaqd.EpochSeedHook'), dict(type='mmaqd.ChannelsLastHook')]
