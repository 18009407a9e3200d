_base_ = [
    __import__('mmaqd').upstream_config_path('paa/paa_r50_fpn_1x_coco.py'),
    '../_base_/full_bn_r18.py',
]

model = dict(
    **_base_.full_bn_r18,
    bbox_head=dict(type='mmaqd.MultiLevelHead', head='PAAHead', norm_cfg=_base_.multi_level_norm))

train_dataloader = _base_.exact_loader

# lr 0.01 is for a batch of 16, MMDetection's 8 GPUs x 2 images (auto_scale_lr.base_batch_size).
optim_wrapper = dict(optimizer=dict(lr=0.01))
