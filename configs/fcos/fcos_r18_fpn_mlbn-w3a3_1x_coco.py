_base_ = './fcos_r18_fpn_mlbn-w4a4_1x_coco.py'

model = dict(
    quantization=dict(weight_quantizer=dict(bit_width=3), input_quantizer=dict(bit_width=3)))

optim_wrapper = dict(optimizer=dict(lr=0.001))
