_base_ = './retinanet_r18_fpn_mlbn-w4a4_1xb2-6e_bccd.py'

model = dict(
    quantization=dict(weight_quantizer=dict(bit_width=8), input_quantizer=dict(bit_width=8)))
