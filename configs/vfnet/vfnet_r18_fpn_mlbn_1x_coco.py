_base_ = [
    __import__('mmaqd').upstream_config_path('vfnet/vfnet_r50_fpn_1x_coco.py'),
    '../_base_/mmaqd_runtime.py',
]

norm_cfg = dict(type='SyncBN', requires_grad=True)  # plain BN when a single process trains

model = dict(
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(mean=[124, 116, 104], std=[1, 1, 1], bgr_to_rgb=True),
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(
            type='mmaqd.FoldInputStd',  # the checkpoint expects an image divided by this std
            checkpoint='torchvision://resnet18',
            std=[58.395, 57.12, 57.375])),
    neck=dict(in_channels=[64, 128, 256, 512], norm_cfg=norm_cfg, act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.MultiLevelHead',
        head='VFNetHead',
        norm_cfg=dict(type='mmaqd.MultiLevelSyncBN', num_levels=5)))

train_dataloader = dict(persistent_workers=False, worker_init_fn=dict(type='mmaqd.seed_worker'))

# lr 0.01 is for a batch of 16, MMDetection's 8 GPUs x 2 images (auto_scale_lr.base_batch_size).
optim_wrapper = dict(optimizer=dict(lr=0.01))
