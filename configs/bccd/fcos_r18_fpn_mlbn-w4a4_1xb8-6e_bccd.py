_base_ = ['./fcos_r18_fpn_mlbn_1xb8-12e_bccd.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='FCOS',
    quantization=dict(
        # The weights keep their mean, which was better: docs/recipes.md.
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, center=False),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=_base_.fcos_rules))

custom_hooks = _base_.fast_low_bit_hooks
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.six_epochs
load_from = 'work_dirs/fcos_r18_fpn_mlbn_1xb8-12e_bccd/epoch_12.pth'
