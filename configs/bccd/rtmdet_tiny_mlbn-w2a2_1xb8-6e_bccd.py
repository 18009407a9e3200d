_base_ = ['./rtmdet_tiny_mlbn_1xb8-12e_bccd.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RTMDet',
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=2),
        # Its learned offset covers SiLU's range with all 4 codes.
        input_quantizer=dict(type='mmaqd.LSQPlusActivationQuantizer', bit_width=2),
        rules=_base_.rtmdet_rules))

custom_hooks = _base_.fast_low_bit_hooks
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.six_epochs
load_from = 'work_dirs/rtmdet_tiny_mlbn_1xb8-12e_bccd/epoch_12.pth'
