_base_ = './fcos_r18_fpn_mlbn-w4a4_6e_bccd.py'

model = dict(
    distillation=dict(
        checkpoint='work_dirs/fcos_r18_fpn_mlbn_12e-6e_bccd/epoch_6.pth',
        losses=[
            dict(type='mmaqd.FeatureDistillationLoss', module='neck', loss_weight=1.0),
            dict(type='mmaqd.FeatureDistillationLoss', module='bbox_head.cls_convs.3'),
            dict(type='mmaqd.FeatureDistillationLoss', module='bbox_head.reg_convs.3'),
            dict(type='mmaqd.OutputDistillationLoss', loss_weight=2.0),
        ]))
