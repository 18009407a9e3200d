# The float twin: RetinaNet-R18 in the structure that its low-bit models need.
_base_ = [
    __import__('mmaqd').upstream_config_path('_base_/models/retinanet_r50_fpn.py'),
    __import__('mmaqd').upstream_config_path('_base_/default_runtime.py'),
    __import__('mmaqd').config_path('_base_/mmaqd_runtime.py'),
    './my_data.py',
]

# Plain BN: SyncBN is for several GPUs. See configs/retinanet for that.
norm_cfg = dict(type='BN', requires_grad=True)
channels = _base_.channels
if channels != 64 and _base_.backbone_checkpoint:
    raise ValueError(f'channels: {_base_.backbone_checkpoint} is for 64, but got {channels}. Set '
                     'backbone_checkpoint = None.')
init_cfg = dict(
    type='mmaqd.FoldInputStd',  # the checkpoint expects an image divided by this std
    checkpoint=_base_.backbone_checkpoint,
    std=[58.395, 57.12, 57.375])

model = dict(
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(mean=[124, 116, 104], std=[1, 1, 1]),
    backbone=dict(
        depth=18,
        base_channels=channels,
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=init_cfg if _base_.backbone_checkpoint else None),
    neck=dict(
        in_channels=[channels, 2 * channels, 4 * channels, 8 * channels],
        out_channels=4 * channels,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU')),
    bbox_head=dict(
        type='mmaqd.AQDRetinaHead',
        num_classes=len(_base_.classes),
        in_channels=4 * channels,
        feat_channels=4 * channels,
        norm_cfg=dict(type='mmaqd.MultiLevelBN', num_levels=5)))

# Two checkpoints are kept, so that one is whole whenever the run is killed.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
