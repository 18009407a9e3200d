_base_ = ['./yolox_tiny_1xb8-12e_bccd.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='YOLOX',
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=8),
        # Signed: Swish goes down to -0.28.
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=8, signed=True),
        rules=_base_.yolox_rules))

custom_hooks = _base_.fast_low_bit_hooks
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.six_epochs
load_from = 'work_dirs/yolox_tiny_1xb8-12e_bccd/epoch_12.pth'
