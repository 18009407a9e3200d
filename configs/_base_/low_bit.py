# What low-bit configs share, to be named after `_base_.`: their rules, one list for each head, and
# their hooks. A further rule goes behind: `rules=[*_base_.retinanet_rules, dict(pattern=...)]`.
first_conv = dict(
    pattern='backbone.conv1',
    weight_quantizer=dict(bit_width=8, normalize=False),
    input_quantizer=None)  # an 8-bit image is an integer already
# There is no BN behind the prediction convs that would undo a normalization.
prediction_convs = dict(
    weight_quantizer=dict(bit_width=8, normalize=False), input_quantizer=dict(bit_width=8))

retinanet_rules = [first_conv, dict(pattern='bbox_head.retina_*', **prediction_convs)]
fcos_rules = [first_conv, dict(pattern='bbox_head.conv_*', **prediction_convs)]
atss_rules = [first_conv, dict(pattern='bbox_head.atss_*', **prediction_convs)]

low_bit_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
]
