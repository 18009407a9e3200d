_base_ = './fcos_r50_fpn_mlbn_1x_coco.py'

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='FCOS',
    backbone=dict(init_cfg=None),  # load_from brings all weights
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=[
            dict(
                pattern='backbone.conv1',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=None),  # an 8-bit image is an integer already
            dict(
                pattern='bbox_head.conv_*',
                weight_quantizer=dict(bit_width=8, normalize=False),
                input_quantizer=dict(bit_width=8)),
        ]))

custom_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
]
optim_wrapper = dict(optimizer=dict(lr=0.002))
load_from = 'work_dirs/fcos_r50_fpn_mlbn_1x_coco/epoch_12.pth'
