_base_ = './retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py'

# Six epochs more, as the low-bit models train: the float twin that they are compared with, and the
# teacher of those that are distilled. Few bits need many iterations: docs/recipes.md.
train_dataloader = dict(batch_size=2)
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.six_epochs
load_from = 'work_dirs/retinanet_r18_fpn_mlbn_1xb8-12e_bccd/epoch_12.pth'
