_base_ = './retinanet_r18_fpn_mlbn_demo_shapes.py'

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RetinaNet',
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
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

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
custom_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
]
optim_wrapper = dict(optimizer=dict(lr=0.0003))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
load_from = 'work_dirs/retinanet_r18_fpn_mlbn_demo_shapes/epoch_11.pth'
