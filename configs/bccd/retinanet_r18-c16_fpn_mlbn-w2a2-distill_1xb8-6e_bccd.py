_base_ = ['./retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd.py', '../_base_/distillation.py']

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=2, center=True), input_quantizer=dict(bit_width=2)),
    distillation=dict(
        checkpoint='work_dirs/retinanet_r18-c16_fpn_mlbn_1xb8-12e_bccd/epoch_12.pth',
        losses=_base_.neck_and_output_losses))
