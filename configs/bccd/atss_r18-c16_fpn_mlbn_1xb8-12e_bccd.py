_base_ = [
    __import__('mmaqd').upstream_config_path('_base_/default_runtime.py'),
    '../_base_/mmaqd_runtime.py',
    '../_base_/bccd.py',
]

norm_cfg = dict(type='BN', requires_grad=True)

# MMDetection has no model file for ATSS to inherit; the head is that of its config
# atss_r50_fpn_1x_coco.py.
model = dict(
    type='ATSS',
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[124, 116, 104],
        std=[1, 1, 1],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,  # a quarter: a run takes a few minutes of one core
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch'),  # trained from scratch
    neck=dict(
        type='FPN',
        in_channels=[16, 32, 64, 128],
        out_channels=64,
        start_level=1,
        add_extra_convs='on_output',
        num_outs=5,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.AQDATSSHead',
        num_classes=3,
        in_channels=64,
        stacked_convs=4,
        feat_channels=64,
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[.0, .0, .0, .0],
            target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100))

# Two checkpoints are kept, so that one is whole whenever the run is killed.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type='mmaqd.EpochSeedHook'), dict(type='mmaqd.ChannelsLastHook')]
