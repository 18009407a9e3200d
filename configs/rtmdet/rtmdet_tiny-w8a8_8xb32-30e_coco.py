_base_ = ['./rtmdet_tiny_8xb32-300e_coco.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RTMDet',
    backbone=dict(init_cfg=None),  # load_from brings all weights
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=8),
        # Signed: SiLU goes down to -0.28.
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=8, signed=True),
        rules=_base_.rtmdet_rules))

# A tenth of the float model's epochs, a fifth of its lr; the last five without mosaic and mixup.
max_epochs, first_plain_epoch = 30, 25
train_cfg = dict(max_epochs=max_epochs, dynamic_intervals=[(first_plain_epoch, 1)])
optim_wrapper = dict(optimizer=dict(lr=0.0008))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True),
]
custom_hooks = [
    _base_.custom_hooks[0],  # EMAHook
    dict(
        type='PipelineSwitchHook',
        switch_epoch=first_plain_epoch,
        switch_pipeline=_base_.train_pipeline_stage2),
    *_base_.low_bit_hooks,
]
load_from = 'work_dirs/rtmdet_tiny_8xb32-300e_coco/epoch_300.pth'
