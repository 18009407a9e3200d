# A small RetinaNet with the Full-BN structure that two CPU cores train in a few minutes on the
# generated data set 'shapes' (256 x 256 pixels, see docs/demo.md). `make demo` writes the data.
_base_ = [
    __import__('mmaqd').upstream_config_path('_base_/models/retinanet_r50_fpn.py'),
    __import__('mmaqd').upstream_config_path('_base_/default_runtime.py'),
    '../_base_/mmaqd_runtime.py',
]

norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(mean=[124, 116, 104], std=[1, 1, 1]),
    backbone=dict(
        depth=18,
        base_channels=32,  # half of the usual 64
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=None),  # trained from scratch
    neck=dict(
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.AQDRetinaHead',
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # From 16 pixels (P3) up instead of from 32; squares only, as no shape is much longer.
        anchor_generator=dict(octave_base_scale=2, ratios=[1.0]),
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5)),
    test_cfg=dict(nms_pre=200))

data_root = __import__('os').path.join('{{$MMAQD_SHAPES:data/shapes/}}', '')
dataset = dict(
    type='CocoDataset',
    data_root=data_root,
    metainfo=dict(classes=('circle', 'square', 'triangle', 'star', 'cross')))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    worker_init_fn=dict(type='mmaqd.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(256, 256), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
        **dataset))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(256, 256), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
        **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator

max_epochs = 11
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    # The paper trains with SGD; so few iterations from scratch go further with this.
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
# Two checkpoints are kept, so that one is whole whenever the run is killed.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
