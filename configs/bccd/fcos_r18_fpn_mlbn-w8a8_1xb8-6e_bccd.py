_base_ = './fcos_r18_fpn_mlbn-w4a4_1xb8-6e_bccd.py'

model = dict(
    quantization=dict(weight_quantizer=dict(bit_width=8), input_quantizer=dict(bit_width=8)))
