_base_ = './retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd.py'

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=2, center=True), input_quantizer=dict(bit_width=2)))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmaqd.ReestimateBNHook', interval=6),  # at the end
]
