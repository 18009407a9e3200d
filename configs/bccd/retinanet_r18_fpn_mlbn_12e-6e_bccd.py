_base_ = './retinanet_r18_fpn_mlbn_12e_bccd.py'

# Six epochs more, as the low-bit models train: the float twin that they are compared with, and the
# teacher of those that are distilled. Few bits need many iterations: docs/recipes.md.
train_dataloader = dict(batch_size=2)
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
load_from = 'work_dirs/retinanet_r18_fpn_mlbn_12e_bccd/epoch_12.pth'
