# The float twin with weights and inputs of 4 bits, started from it.
_base_ = './float.py'

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RetinaNet',
    backbone=dict(init_cfg=None),  # load_from brings all weights
    quantization=dict(
        # The weights keep their mean, which is better in a short training: docs/recipes.md.
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, center=False),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=[
            dict(
                pattern='backbone.conv1',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=None),  # an 8-bit image is an integer already
            dict(
                pattern='bbox_head.retina_*',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=dict(bit_width=8)),
        ]))

custom_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
]
train_cfg = dict(max_epochs=_base_.low_bit_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=_base_.low_bit_epochs,
        T_max=_base_.low_bit_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
load_from = f'work_dirs/float/epoch_{_base_.max_epochs}.pth'
