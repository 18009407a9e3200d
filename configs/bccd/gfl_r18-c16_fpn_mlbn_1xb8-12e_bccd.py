_base_ = './atss_r18-c16_fpn_mlbn_1xb8-12e_bccd.py'

# The head is that of MMDetection's gfl_r50_fpn_1x_coco.py.
model = dict(
    type='GFL',
    bbox_head=dict(
        _delete_=True,
        type='mmaqd.MultiLevelHead',
        head='GFLHead',
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
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0)))
