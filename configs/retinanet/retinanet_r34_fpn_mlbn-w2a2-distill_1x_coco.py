_base_ = ['./retinanet_r34_fpn_mlbn-w4a4_1x_coco.py', '../_base_/distillation.py']

model = dict(
    quantization=dict(weight_quantizer=dict(bit_width=2), input_quantizer=dict(bit_width=2)),
    distillation=dict(
        checkpoint='work_dirs/retinanet_r34_fpn_mlbn_1x_coco/epoch_12.pth',
        losses=_base_.neck_and_output_losses))

optim_wrapper = dict(optimizer=dict(lr=0.001))
