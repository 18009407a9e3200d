_base_ = ['./fcos_r18_fpn_mlbn-w3a3_1xb8-6e_bccd.py', '../_base_/distillation.py']

model = dict(
    distillation=dict(
        checkpoint='work_dirs/fcos_r18_fpn_mlbn_1xb8-12e-6e_bccd/epoch_6.pth',
        losses=_base_.distillation_losses))
