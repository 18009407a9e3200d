_base_ = './rtmdet_tiny_1xb8-12e_bccd.py'

# The head that shares all its layers over the levels, but for BN.
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='mmaqd.MultiLevelHead',
        head='RTMDetHead',
        num_classes=3,
        in_channels=96,
        stacked_convs=2,
        feat_channels=96,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        pred_kernel_size=1,
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=3),
        act_cfg=_base_.act_cfg))
