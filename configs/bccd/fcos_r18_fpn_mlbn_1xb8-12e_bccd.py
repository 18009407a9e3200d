_base_ = [
    __import__('mmaqd').upstream_config_path('_base_/default_runtime.py'),
    '../_base_/mmaqd_runtime.py',
    '../_base_/bccd.py',
]

norm_cfg = dict(type='BN', requires_grad=True)

# MMDetection has no model file for FCOS to inherit; the head is that of its config
# fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py.
model = dict(
    type='FCOS',
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
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch'),  # trained from scratch
    neck=dict(
        type='FPN',
        in_channels=[64, 128, 256, 512],
        out_channels=256,
        start_level=1,
        add_extra_convs='on_output',
        num_outs=5,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.AQDFCOSHead',
        num_classes=3,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        # Images of 320 x 240 instead of 1333 x 800: objects are a quarter of the size.
        regress_ranges=((-1, 32), (32, 64), (64, 128), (128, 256), (256, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias='auto',  # no bias before a norm
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100))

# Two checkpoints are kept, so that one is whole whenever the run is killed.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type='mmaqd.EpochSeedHook'), dict(type='mmaqd.ChannelsLastHook')]
