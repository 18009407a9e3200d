# What turns MMDetection's one-stage R50 detectors into those that low bits need, at R18: BN
# everywhere, one for each level in the head. To be named after `_base_.`.
_base_ = './mmaqd_runtime.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)  # plain BN when a single process trains
multi_level_norm = dict(type='mmaqd.MultiLevelSyncBN', num_levels=5)

full_bn_r18 = dict(
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
    neck=dict(in_channels=[64, 128, 256, 512], norm_cfg=norm_cfg, act_cfg=dict(type='ReLU')))

exact_loader = dict(persistent_workers=False, worker_init_fn=dict(type='mmaqd.seed_worker'))
