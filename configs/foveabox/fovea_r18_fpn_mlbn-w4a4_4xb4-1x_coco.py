_base_ = ['./fovea_r18_fpn_mlbn_4xb4-1x_coco.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='FOVEA',
    backbone=dict(init_cfg=None),  # load_from brings all weights
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=_base_.fovea_rules))

custom_hooks = _base_.low_bit_hooks
optim_wrapper = dict(optimizer=dict(lr=0.002))
load_from = 'work_dirs/fovea_r18_fpn_mlbn_4xb4-1x_coco/epoch_12.pth'
