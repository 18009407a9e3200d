_base_ = './fcos_r34_fpn_mlbn-w4a4_1x_coco.py'

model = dict(
    quantization=dict(weight_quantizer=dict(bit_width=2), input_quantizer=dict(bit_width=2)),
    distillation=dict(
        checkpoint='work_dirs/fcos_r34_fpn_mlbn_1x_coco/epoch_12.pth',
        losses=[
            dict(type='mmaqd.FeatureDistillationLoss', module='neck', loss_weight=1.0),
            dict(type='mmaqd.OutputDistillationLoss', loss_weight=2.0),
        ]))

optim_wrapper = dict(optimizer=dict(lr=0.001))
