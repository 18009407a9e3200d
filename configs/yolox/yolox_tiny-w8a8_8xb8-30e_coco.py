_base_ = ['./yolox_tiny_8xb8-300e_coco.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='YOLOX',
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=8),
        # Signed: Swish goes down to -0.28.
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=8, signed=True),
        rules=_base_.yolox_rules))

# A tenth of the float model's epochs, a fifth of its lr; the last five without mosaic.
max_epochs, num_last_epochs = 30, 5
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    dict(type='mmdet.QuadraticWarmupLR', by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=1,
        end=max_epochs - num_last_epochs,
        T_max=max_epochs - num_last_epochs,
        by_epoch=True,
        convert_to_iter_based=True),
    dict(
        type='ConstantLR',
        by_epoch=True,
        factor=1,
        begin=max_epochs - num_last_epochs,
        end=max_epochs),
]
custom_hooks = [
    dict(type='YOLOXModeSwitchHook', num_last_epochs=num_last_epochs, priority=48),
    *_base_.custom_hooks[1:3],  # SyncNormHook, EMAHook
    *_base_.low_bit_hooks,
]
load_from = 'work_dirs/yolox_tiny_8xb8-300e_coco/epoch_300.pth'
