_base_ = './retinanet_r18_fpn_mlbn_12e_bccd.py'

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RetinaNet',
    quantization=dict(
        # The weights keep their mean, which was better at 3 and 4 bits: docs/recipes.md.
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
    dict(type='mmaqd.ChannelsLastHook'),
    dict(type='mmaqd.CompileKernelsHook'),
]
# Few bits need many iterations: docs/recipes.md.
train_dataloader = dict(batch_size=2)
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
load_from = 'work_dirs/retinanet_r18_fpn_mlbn_12e_bccd/epoch_12.pth'
