_base_ = ['./retinanet_r18_fpn_mlbn-w4a4_1xb2-6e_bccd.py', '../_base_/distillation.py']

model = dict(
    distillation=dict(
        checkpoint='work_dirs/retinanet_r18_fpn_mlbn_1xb2-12e-6e_bccd/epoch_6.pth',
        losses=_base_.distillation_losses))
