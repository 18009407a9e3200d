_base_ = './fcos_r18_fpn_mlbn_1x_coco.py'

model = dict(backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
