_base_ = './retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd.py'

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=2, center=True), input_quantizer=dict(bit_width=2)))

custom_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.ChangeBitsHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
    dict(type='mmaqd.ChannelsLastHook'),
    dict(type='mmaqd.CompileKernelsHook'),
]
load_from = 'work_dirs/retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd/epoch_6.pth'
